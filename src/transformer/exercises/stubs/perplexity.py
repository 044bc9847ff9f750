"""Exercise: perplexity. Lesson: src/transformer/perplexity.py.

N positions in a batch (batches differ in N), V tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

IGNORE = -100  # a target that does not count: padding


def perplexity(batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Returns the perplexity of all batches together; each is logits (N, V) and targets (N,) int64."""
    raise NotImplementedError


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """Returns the bits per byte of a text of text_bytes bytes, whose tokens have a summed loss of `nats`."""
    raise NotImplementedError
