"""Correct versions of all exercises, most of them this project's own code under the exercise's signature."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from transformer.attention import causal_mask, explicit_attention, fused_attention
from transformer.block import Block, norm
from transformer.config import ModelConfig, OptimizerConfig, SamplingConfig
from transformer.embeddings import rotary_table, sinusoidal_table
from transformer.embeddings import rotate as rotate_by
from transformer.interpret.induction_by_hand import A, B, induction_model
from transformer.kernels import tiled_loss, top_p
from transformer.kv_cache import KVCache
from transformer.loss import next_token_loss
from transformer.perplexity import Evaluation, calculate_perplexity
from transformer.sampling import filter_logits, keep_top_k, keep_top_p
from transformer.scheduler import lr_scale
from transformer.training_utils import accumulate_gradients, count_targets

Parts = Callable[[Tensor], Tensor]


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return explicit_attention(q, k, v, mask)[0]


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


class Cache:
    """The project's cache with one layer."""

    def __init__(self, batch_size: int, heads: int, max_len: int, head_dim: int) -> None:
        shape = (batch_size, heads, max_len, head_dim)
        self.cache = KVCache([torch.zeros(shape)], [torch.zeros(shape)])

    def positions(self, new: int) -> Tensor:
        return torch.arange(self.cache.length, self.cache.length + new)

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        found = self.cache.update(0, k, v)
        self.cache.advance(k.shape[2])
        return found


def rotate(x: Tensor, positions: Tensor, theta: float = 10_000.0) -> Tensor:
    return rotate_by(x, rotary_table(int(positions.max()) + 1, x.shape[-1], theta)[:, positions])


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    module = norm(ModelConfig(d_model=x.shape[-1], num_heads=1, norm_eps=eps))
    return torch.func.functional_call(module, {"weight": weight, "bias": bias}, (x,))


class Part(nn.Module):
    """A part of a block that calls a function."""

    def __init__(self, function: Parts) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        return self.function(x)


def block(x: Tensor, attention: Parts, feed_forward: Parts, attention_norm: Parts, feed_forward_norm: Parts) -> Tensor:
    """The project's block with other parts."""
    module = Block(ModelConfig(d_model=2, num_heads=1, d_ff=2), layer=0)
    module.attention, module.feedforward = Part(attention), Part(feed_forward)  # type: ignore[assignment]
    module.attention_norm, module.feedforward_norm = Part(attention_norm), Part(feed_forward_norm)  # type: ignore[assignment]
    return module(x, None)


def inputs_and_targets(rows: Tensor) -> tuple[Tensor, Tensor]:
    return rows[:, :-1], rows[:, 1:]


def filtered(logits: Tensor, temperature: float, top_k: int | None, top_p: float) -> Tensor:
    settings = SamplingConfig("top_k_top_p", temperature, top_k or logits.shape[-1], top_p)
    return filter_logits(logits, settings)


def faster_filtered(logits: Tensor, temperature: float, top_k: int | None, top_p_: float) -> Tensor:
    return top_p.filter_logits(logits, SamplingConfig("top_k_top_p", temperature, top_k or logits.shape[-1], top_p_))


def perplexity(batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    logits, targets = zip(*batches, strict=True)
    return calculate_perplexity(torch.cat(logits), torch.cat(targets))


def bits_per_byte(nats: float, text_bytes: int) -> float:
    return Evaluation(nats, 1, text_bytes).bits_per_byte


def scale(step: int, total_steps: int, warmup: int, low: float) -> float:
    return lr_scale(step, total_steps, OptimizerConfig(warmup_fraction=warmup / total_steps, min_lr_ratio=low))


def copies(width: int, start: int, to: int, count: int, strength: float) -> Tensor:
    """A matrix (width, width) that maps `count` numbers from `start` to `to`, times `strength`."""
    matrix = torch.zeros(width, width)
    matrix[start : start + count, to : to + count] = strength * torch.eye(count)
    return matrix


def previous_token_head(vocab_size: int, length: int) -> tuple[Tensor, Tensor]:
    width, previous = 3 * vocab_size + length, vocab_size + length
    qk = torch.zeros(width, width)
    for position in range(1, length):
        qk[vocab_size + position, vocab_size + position - 1] = 20.0
    return qk, copies(width, 0, previous, vocab_size, 1.0)


def induction_head(vocab_size: int, length: int) -> tuple[Tensor, Tensor]:
    width, previous = 3 * vocab_size + length, vocab_size + length
    return (
        copies(width, 0, previous, vocab_size, 20.0),
        copies(width, 0, previous + vocab_size, vocab_size, 1.0),
    )


SOLUTIONS: dict[str, SimpleNamespace] = {
    "causal_mask": SimpleNamespace(causal_mask=causal_mask),
    "attention": SimpleNamespace(attention=attention),
    "heads": SimpleNamespace(split_heads=split_heads, merge_heads=merge_heads),
    "cache": SimpleNamespace(Cache=Cache),
    "positions": SimpleNamespace(rotate=rotate, sinusoidal_table=sinusoidal_table),
    "block": SimpleNamespace(layer_norm=layer_norm, block=block),
    "loss": SimpleNamespace(inputs_and_targets=inputs_and_targets, next_token_loss=next_token_loss),
    "sampling": SimpleNamespace(keep_top_k=keep_top_k, keep_top_p=keep_top_p, filter_logits=filtered),
    "perplexity": SimpleNamespace(perplexity=perplexity, bits_per_byte=bits_per_byte),
    "accumulation": SimpleNamespace(count_targets=count_targets, accumulate_gradients=accumulate_gradients),
    "schedule": SimpleNamespace(lr_scale=scale),
    "induction": SimpleNamespace(previous_token_head=previous_token_head, induction_head=induction_head),
}
"""By exercise."""


def head_matrices(layer: int, head: int, vocab_size: int, length: int) -> tuple[Tensor, Tensor]:
    """qk and ov of a head of the model that is set by hand: its norms change nothing, as its lesson says."""
    attention = induction_model(vocab_size, length).layers[layer].attention
    q, k, v = (rows.unflatten(0, (attention.num_heads, -1))[head] for rows in attention.qkv.weight.chunk(3))  # (D, C)
    out = attention.out.weight.unflatten(1, (attention.num_heads, -1))[:, head]  # (C, D)
    return (q.T @ k / math.sqrt(attention.head_dim)).detach(), (v.T @ out.T).detach()


INDUCTION_MODEL = SimpleNamespace(
    previous_token_head=lambda *sizes: head_matrices(*A, *sizes),
    induction_head=lambda *sizes: head_matrices(*B, *sizes),
)
"""The two heads of interpret/induction_by_hand.py, as another solution of that exercise."""
OTHERS: dict[str, list[SimpleNamespace]] = {
    "attention": [SimpleNamespace(attention=lambda q, k, v, mask: fused_attention(q, k, v, mask))],
    "loss": [SimpleNamespace(inputs_and_targets=inputs_and_targets, next_token_loss=tiled_loss.next_token_loss)],
    "sampling": [SimpleNamespace(keep_top_k=keep_top_k, keep_top_p=top_p.keep_top_p, filter_logits=faster_filtered)],
    "induction": [INDUCTION_MODEL],
}
"""Faster or other versions, by exercise."""
CAUSAL_ATTENTION = (
    lambda q, k, v, mask: fused_attention(q, k, v),
    lambda q, k, v, mask: explicit_attention(q, k, v)[0],
)
"""Versions of attention that know the causal mask themselves."""
