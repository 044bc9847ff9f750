"""Exercise: positions. Lesson: src/transformer/embeddings.py.

Choose: write rotate (rotary positions), or sinusoidal_table, or both. The check is passed with one of them.
"""

from __future__ import annotations

from torch import Tensor


def rotate(x: Tensor, positions: Tensor, theta: float = 10_000.0) -> Tensor:
    """Returns x (..., T, D) with pair i of the token at position p rotated by p / theta^(2i/D) radians.

    positions (T,) int64; D is even. Pair i consists of the numbers i and i + D/2.
    """
    raise NotImplementedError


def sinusoidal_table(max_len: int, d_model: int) -> Tensor:
    """Returns the sinusoidal encoding (max_len, C) of every position; C = d_model is even.

    Columns 2i and 2i + 1 of row p hold the sine and the cosine of p / 10000^(2i/C).
    """
    raise NotImplementedError
