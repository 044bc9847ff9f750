"""A reader's finished parts in a training run: they replace this project's versions in a model that is built.

The weights and their names stay the same, so a checkpoint of such a run is an ordinary one. Where the core has an
attribute for faster versions (kernels/), the reader's version takes that place; attention, blocks and norms get a class
of their own, whose forward() calls the reader's functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from transformer.attention import CausalSelfAttention, Context, causal_mask, normalise
from transformer.block import Block
from transformer.config import OptimizerConfig, SamplingConfig
from transformer.embeddings import INIT_STD, rotate
from transformer.kv_cache import KVCache
from transformer.loss import at_least_float32
from transformer.sampling import is_greedy, keep_min_p, penalise_repetition, scale_by_temperature
from transformer.trainer import Trainer

Function = Callable[..., Any]


ALIBI = "with ALiBi the mask holds numbers: --position rotary uses it"


class Chosen(NamedTuple):
    """Which exercises are parts of the run, by name, and why others are not."""

    used: list[str]
    unused: dict[str, str]


def use_parts(trainer: Trainer, solutions: Mapping[str, ModuleType]) -> Chosen:
    """Puts the reader's parts into the trainer and its model, in place. The modules are those of finished exercises."""
    used: list[str] = []
    unused: dict[str, str] = {}
    for name in sorted(solutions, key=lambda name: list(USES).index(name) if name in USES else len(USES)):
        reason = USES[name](trainer, solutions[name]) if name in USES else "not a part of training"
        if reason is None:
            used.append(name)
        else:
            unused[name] = reason
    return Chosen(used, unused)


def use_mask(trainer: Trainer, module: ModuleType) -> str | None:
    """Puts the reader's causal mask in front of every layer's attention."""
    if trainer.model.config.position == "alibi":
        return ALIBI
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
        return ALIBI
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
        become(block, OwnBlock, function=module.block)
    for norm in [part for part in model.modules() if type(part) is nn.LayerNorm and part.bias is not None]:
        become(norm, OwnNorm, function=module.layer_norm)
    return None


class OwnAttention(CausalSelfAttention):
    """Self-attention that cuts and merges heads, and rotates, with the reader's functions."""

    split_heads: Function = staticmethod(lambda x, heads: x.unflatten(-1, (heads, -1)).transpose(1, 2))
    merge_heads: Function = staticmethod(lambda x: x.transpose(1, 2).flatten(2))
    rotate: Function | None = None

    def forward(self, x: Tensor, context: Context, cache: KVCache | None = None) -> Tensor:
        q, k, v = self.qkv(x).split(self.widths, dim=-1)  # (B, T, H D), (B, T, K D), (B, T, K D)
        q, k = normalise(q, self.q_norm), normalise(k, self.k_norm)
        q, k, v = (self.split_heads(part, part.shape[-1] // self.head_dim) for part in (q, k, v))  # (B, H or K, T, D)
        if context.rotary is not None and self.rotate is not None:
            q, k = self.rotate(q, context.positions), self.rotate(k, context.positions)
        elif context.rotary is not None:
            q, k = rotate(q, context.rotary), rotate(k, context.rotary)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)
        gathered = self.attend(q, k, v, context.mask, self.dropout.p if self.training else 0.0)  # (B, H, T, D)
        out: Tensor = self.dropout(self.out(self.merge_heads(gathered)))
        return out


def use_heads(trainer: Trainer, module: ModuleType) -> str | None:
    for block in trainer.model.layers:
        become(block.attention, OwnAttention, split_heads=module.split_heads, merge_heads=module.merge_heads)
    return None


def use_positions(trainer: Trainer, module: ModuleType) -> str | None:
    config, model = trainer.model.config, trainer.model
    try:
        if config.position == "rotary" and config.rotary_fraction == 1 and not config.rope_scaling:
            module.rotate(
                torch.zeros(1, 2), torch.arange(1), config.rope_theta
            )  # is it the one of the two that is written?
            for block in model.layers:
                become(block.attention, OwnAttention, rotate=partial(rotate_with, module.rotate, config.rope_theta))
            return None
        if model.embeddings.sinusoids is not None:
            table = module.sinusoidal_table(config.max_seq_len, config.d_model)
            model.embeddings.sinusoids.copy_(INIT_STD * math.sqrt(2) * table)  # scaled as in embeddings.py
            return None
    except NotImplementedError:
        return f"the one for --position {config.position} is not written"
    return f"the model has {config.position} positions: see --position"


def rotate_with(rotated: Function, theta: float, x: Tensor, positions: Tensor) -> Tensor:
    """The reader's rotation; its angles are float32, also where the model multiplies in fewer bits."""
    out: Tensor = rotated(x, positions, theta)
    return out.type_as(x)


def become(part: nn.Module, kind: type[nn.Module], **functions: Function) -> None:
    """Changes the class of a part of the model, as kernels/ does; its parameters stay."""
    part.__class__ = kind
    part.__dict__.update(functions)


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
    "attention": use_attention, "causal_mask": use_mask, "heads": use_heads, "positions": use_positions,
    "block": use_block, "loss": use_loss, "sampling": use_sampling, "accumulation": use_accumulation,
    "schedule": use_schedule,
}  # fmt: skip
"""By exercise: puts it into a run, or returns why not. Attention comes before the mask that it is given."""
