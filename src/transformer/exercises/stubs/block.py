"""Exercise: layer norm and the block. Lesson: src/transformer/block.py.

B texts, T tokens, C numbers for each. The norms come before the parts (pre-norm).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Returns the layer norm of each vector of x (..., C): mean 0 and variance 1, times weight (C,), plus bias (C,)."""
    raise NotImplementedError


def block(
    x: Tensor,
    attention: Callable[[Tensor], Tensor],
    feed_forward: Callable[[Tensor], Tensor],
    attention_norm: Callable[[Tensor], Tensor],
    feed_forward_norm: Callable[[Tensor], Tensor],
) -> Tensor:
    """Returns the residual stream after one block: x (B, T, C) -> (B, T, C). Each part maps (B, T, C) to (B, T, C)."""
    raise NotImplementedError
