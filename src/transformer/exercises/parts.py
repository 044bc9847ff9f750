"""A reader's finished parts in a training run: they replace this project's versions in a model that is built.

The weights and their names stay the same, so a checkpoint of such a run is an ordinary one. Where the core has an
attribute for faster versions (kernels/), the reader's version takes that place; a block and its norms get a class of
their own, whose forward() calls the reader's function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from transformer.attention import Context, causal_mask
from transformer.block import Block
from transformer.config import OptimizerConfig, SamplingConfig
from transformer.kv_cache import KVCache
from transformer.loss import at_least_float32
from transformer.sampling import is_greedy, keep_min_p, penalise_repetition, scale_by_temperature
from transformer.trainer import Trainer

Function = Callable[..., Any]


class Chosen(NamedTuple):
    """Which exercises are parts of the run, by name, and why others are not."""

    used: list[str]
    unused: dict[str, str]


def use_parts(trainer: Trainer, solutions: Mapping[str, ModuleType]) -> Chosen:
    """Puts the reader's parts into the trainer and its model, in place. The modules are those of finished exercises."""
    used: list[str] = []
    unused: dict[str, str] = {}
    for name in sorted(solutions, key=lambda name: list(USES).index(name) if name in USES else len(USES)):
        reason = USES[name](trainer, solutions[name]) if name in USES else "it is not a part of training"
        if reason is None:
            used.append(name)
        else:
            unused[name] = reason
    return Chosen(used, unused)


def use_mask(trainer: Trainer, module: ModuleType) -> str | None:
    """Puts the reader's causal mask in front of every layer's attention."""
    if trainer.model.config.position == "alibi":
        return "with ALiBi the mask holds numbers"
    for block in trainer.model.layers:
        block.attention.attend = partial(attend_with_mask, block.attention.attend, module.causal_mask)
    return None


def attend_with_mask(
    attend: Function,
    make_mask: Function,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention with the reader's causal mask, unless the model has another one."""
    if mask is None:
        mask = make_mask(q.shape[2], k.shape[2]).to(q.device)  # (T, S)
    out: Tensor = attend(q, k, v, mask, dropout)
    return out


def use_attention(trainer: Trainer, module: ModuleType) -> str | None:
    if trainer.model.config.position == "alibi":
        return "with ALiBi the mask holds numbers"
    for block in trainer.model.layers:
        block.attention.attend = partial(attend_with, module.attention)
    return None


def attend_with(
    attention: Function, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """The reader's attention, which drops no weights and knows no groups: each query head gets its keys."""
    if mask is None:
        mask = causal_mask(q.shape[2], k.shape[2], q.device)  # (T, S)
    k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], dim=1) for part in (k, v))  # (B, H, S, D)
    out: Tensor = attention(q, k, v, mask)
    return out


class OwnNorm(nn.LayerNorm):
    """A layer norm that calls the reader's function."""

    function: Function

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.function(x, self.weight, self.bias, self.eps)
        return out


class OwnBlock(Block):
    """A block that calls the reader's function."""

    function: Function

    def forward(self, x: Tensor, context: Context, cache: KVCache | None = None) -> Tensor:
        attention = partial(self.attention, context=context, cache=cache)
        out: Tensor = self.function(x, attention, self.feedforward, self.attention_norm, self.feedforward_norm)
        return out


def use_block(trainer: Trainer, module: ModuleType) -> str | None:
    model = trainer.model
    if model.config.norm_position != "before" or model.config.parallel_blocks:
        return "these blocks are of another kind"
    if any(type(block) is not Block for block in model.layers):
        return "--activation-checkpointing has blocks of its own"
    for block in model.layers:
        become(block, OwnBlock, module.block)
    for norm in [part for part in model.modules() if type(part) is nn.LayerNorm and part.bias is not None]:
        become(norm, OwnNorm, module.layer_norm)
    return None


def become(part: nn.Module, kind: type[OwnNorm] | type[OwnBlock], function: Function) -> None:
    """Changes the class of a part of the model, as kernels/ does; its parameters stay."""
    part.__class__ = kind
    part.__dict__["function"] = function


def use_loss(trainer: Trainer, module: ModuleType) -> str | None:
    trainer.model.next_token_loss = partial(loss_with, module.next_token_loss)
    return None


def loss_with(loss: Function, hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The reader's loss, in float32 even where the model multiplies in fewer bits."""
    with torch.autocast(hidden.device.type, enabled=False):
        nats, count = loss(at_least_float32(hidden), at_least_float32(weight), targets)
    return nats, count


def use_sampling(trainer: Trainer, module: ModuleType) -> str | None:
    trainer.model.filter_logits = partial(filter_with, module.filter_logits)
    return None


def filter_with(filters: Function, logits: Tensor, sampling: SamplingConfig, text: Tensor | None = None) -> Tensor:
    """filter_logits of sampling.py with the reader's temperature, top-k and top-p."""
    logits = penalise_repetition(at_least_float32(logits), text, sampling.repetition_penalty)
    if is_greedy(sampling):
        return scale_by_temperature(logits, 0)
    top_k = sampling.top_k if sampling.strategy in ("top_k", "top_k_top_p") else None
    top_p = sampling.top_p if sampling.strategy in ("top_p", "top_k_top_p") else 1.0
    return keep_min_p(filters(logits, sampling.temperature, top_k, top_p), sampling.min_p)


def use_accumulation(trainer: Trainer, module: ModuleType) -> str | None:
    trainer.accumulate_gradients = module.accumulate_gradients
    return None


def use_schedule(trainer: Trainer, module: ModuleType) -> str | None:
    if trainer.config.optimizer.schedule != "cosine":
        return f"--schedule {trainer.config.optimizer.schedule} is another one"
    trainer.lr_scale = partial(scale_with, module.lr_scale)
    return None


def scale_with(scale: Function, step: int, total_steps: int, settings: OptimizerConfig) -> float:
    """lr_scale of scheduler.py with the reader's cosine schedule."""
    warmup = round(settings.warmup_fraction * total_steps)
    return float(scale(step, total_steps, warmup, settings.min_lr_ratio))


USES: dict[str, Callable[[Trainer, ModuleType], str | None]] = {
    "attention": use_attention, "causal_mask": use_mask, "block": use_block, "loss": use_loss,
    "sampling": use_sampling, "accumulation": use_accumulation, "schedule": use_schedule,
}  # fmt: skip
"""By exercise: puts it into a run, or returns why not. Attention comes before the mask that it is given."""
