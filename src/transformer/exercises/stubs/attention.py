"""Exercise: attention. Lesson: src/transformer/attention.py.

B texts, H heads, T queries, S keys, D the width of a head.
"""

from __future__ import annotations

from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Returns softmax(q k^T / sqrt(D)) v, (B, H, T, D), with a weight of 0 for each key that the mask hides.

    q (B, H, T, D); k and v (B, H, S, D); mask bool, (T, S) or another shape that broadcasts to (B, H, T, S): True
    where a query may attend to a key.
    """
    raise NotImplementedError
