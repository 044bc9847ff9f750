"""Exercise: gradient accumulation. Lesson: src/transformer/training_utils.py.

A micro-batch is a pair: tokens and targets, each (B, T) int64; micro-batches may differ in both sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

IGNORE = -100  # a target that does not count: padding


def count_targets(micro_batches: Iterable[tuple[Tensor, Tensor]]) -> int:
    """Returns the number of targets that count, over all micro-batches."""
    raise NotImplementedError


def accumulate_gradients(
    objective: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    micro_batches: Iterable[tuple[Tensor, Tensor]],
    divisor: float,
) -> tuple[Tensor, Tensor]:
    """Adds the gradient of (summed nats of all micro-batches) / divisor to the .grad of the parameters.

    objective(tokens, targets) returns the summed nats () of one micro-batch and the number of its tokens (). Returns
    the sums of both over all micro-batches, tensors of shape () without a graph.
    """
    raise NotImplementedError
