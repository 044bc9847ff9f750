"""Exercise: heads. Lesson: src/transformer/attention.py, "Heads".

The C numbers of a token are cut into H heads of D = C / H neighbouring numbers, and assembled again.
"""

from __future__ import annotations

from torch import Tensor


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Returns x (B, T, C) cut into heads, (B, H, T, D): head 0 has the first D numbers of each token."""
    raise NotImplementedError


def merge_heads(x: Tensor) -> Tensor:
    """Returns the heads (B, H, T, D) side by side, (B, T, C): undoes split_heads."""
    raise NotImplementedError
