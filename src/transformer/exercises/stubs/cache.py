"""Exercise: the key-value cache of one layer. Lesson: src/transformer/kv_cache.py.

B texts, K heads, T new tokens, S tokens so far (the new ones included), D the width of a head.
"""

from __future__ import annotations

from torch import Tensor


class Cache:
    """Keys and values of up to max_len tokens for each of B texts."""

    def __init__(self, batch_size: int, heads: int, max_len: int, head_dim: int) -> None:
        """Makes an empty cache."""
        raise NotImplementedError

    def positions(self, new: int) -> Tensor:
        """Returns the positions (T,) int64 that the next T = new tokens will have in their text; stores nothing."""
        raise NotImplementedError

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores k and v (B, K, T, D) of T new tokens. Returns the keys and the values of all, each (B, K, S, D).

        Raises ValueError if the new tokens do not fit.
        """
        raise NotImplementedError
