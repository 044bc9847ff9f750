"""Exercise: the causal mask. Lesson: src/transformer/attention.py, "Why a mask?".

A query may attend to its own token and to earlier ones. T queries, S keys; the queries are the last T of the S tokens.
"""

from __future__ import annotations

from torch import Tensor


def causal_mask(queries: int, keys: int) -> Tensor:
    """Returns the mask (T, S) bool for T = queries and S = keys: True where a query may attend to a key."""
    raise NotImplementedError
