"""Exercise: the loss. Lesson: src/transformer/loss.py.

N positions, V tokens in the vocabulary, C numbers in a hidden vector.
"""

from __future__ import annotations

from torch import Tensor

IGNORE = -100  # a target that does not count: padding


def inputs_and_targets(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Returns inputs and targets, each (B, T) int64, of rows of text (B, T + 1) int64."""
    raise NotImplementedError


def next_token_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the summed loss in nats and the number of targets that count, both tensors of shape ().

    hidden (N, C): the vectors after the final norm; weight (V, C): the output matrix; targets (N,) int64.
    """
    raise NotImplementedError
