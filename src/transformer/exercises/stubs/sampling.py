"""Exercise: sampling filters. Lesson: src/transformer/sampling.py.

V tokens in the vocabulary. A filter keeps a logit as it is or sets it to -inf; it works on the last dimension.
"""

from __future__ import annotations

from torch import Tensor


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Returns logits (..., V) with all below the top_k-th largest at -inf. Those equal to it stay."""
    raise NotImplementedError


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Returns logits (..., V) with the fewest most likely tokens kept whose probabilities sum to top_p or more."""
    raise NotImplementedError


def filter_logits(logits: Tensor, temperature: float, top_k: int | None, top_p: float) -> Tensor:
    """Returns logits (..., V) after temperature (above 0), then top-k (None: all), then top-p (1.0: all)."""
    raise NotImplementedError
