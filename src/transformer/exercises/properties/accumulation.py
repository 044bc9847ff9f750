"""Properties of count_targets and accumulate_gradients: several micro-batches give the gradient of one large batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from transformer.config import IGNORE
from transformer.exercises.property import Broken, about, expect_number, expect_pair, expect_tensor, is_close, readable

Batch = tuple[Tensor, Tensor]


class TargetTimesWeight(nn.Module):
    """A model of one weight w whose loss on a token with target t is w * t: the lesson's, with the gradient t."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.weight * targets.clamp(min=0).sum(), (targets != IGNORE).sum()


def micro_batches(*rows: tuple[int, ...]) -> list[Batch]:
    """Returns a micro-batch of one row for each tuple of targets."""
    return [(torch.tensor([row]), torch.tensor([row])) for row in rows]


def targets_of(rows: tuple[tuple[int, ...], ...]) -> str:
    return " and ".join(str(list(row)) for row in rows)


def count(rows: tuple[tuple[int, ...], ...]) -> int:
    return sum(target != IGNORE for row in rows for target in row)


CASES: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((2,), (4,)), ((1, 1, 1), (5,)), ((1, 3),), ((1, 1, 1), (5, IGNORE, IGNORE)), ((2, 4), (IGNORE, 6), (8, 0)),
)  # fmt: skip
"""Targets of the micro-batches, in increasing size."""


@about("count_targets", hint=f"A target of {IGNORE} is padding and does not count. The result is a whole number.")
def counts_all_targets_but_padding(solution: Any) -> None:
    """count_targets returns the number of targets that are not IGNORE (-100), over all micro-batches."""
    for rows in CASES:
        found = expect_number(solution.count_targets(micro_batches(*rows)), "count_targets(micro_batches)")
        if found != count(rows):
            raise Broken(f"targets {targets_of(rows)}: count_targets is {readable(found)} instead of {count(rows)}")


def accumulated(solution: Any, rows: tuple[tuple[int, ...], ...], objective: nn.Module) -> Any:
    return solution.accumulate_gradients(objective, micro_batches(*rows), count(rows))


@about(
    "accumulate_gradients",
    hint="Each micro-batch's summed loss is divided by the divisor, then backward(). The divisor is the count of the "
    "whole step, not that of the micro-batch. backward() adds to .grad by itself.",
)
def gradient_is_that_of_the_mean_over_all_tokens(solution: Any) -> None:
    """The gradient is that of the summed loss of all micro-batches, divided by the divisor."""
    for rows in CASES:
        objective = TargetTimesWeight()
        accumulated(solution, rows, objective)
        if objective.weight.grad is None:
            raise Broken(f"targets {targets_of(rows)}: no parameter has a gradient; is backward() called?")
        sums = [sum(target for target in row if target != IGNORE) for row in rows]
        counts = [max(1, count((row,))) for row in rows]
        wanted, found = sum(sums) / count(rows), float(objective.weight.grad)
        if not is_close(found, wanted):
            means = [total / number for total, number in zip(sums, counts, strict=True)]
            others = {
                "the sum, without a division": sum(sums),
                "the gradient of the last micro-batch alone": sums[-1] / count(rows),
                "the mean of the micro-batches' means": sum(means) / len(means),
                "the sum of the micro-batches' means": sum(means),
                "the sum divided by the number of micro-batches": sum(sums) / len(rows),
            }
            said = next((f"; that is {name}" for name, other in others.items() if is_close(found, other)), "")
            raise Broken(
                f"a loss of w * target, targets {targets_of(rows)}, divisor {count(rows)}: the gradient of w is "
                f"{readable(found)} instead of {readable(wanted)}{said}"
            )


@about("accumulate_gradients", hint="Clearing .grad is the task of the training step, after the optimizer.")
def adds_to_the_gradients_that_are_there(solution: Any) -> None:
    """Gradients are added to those that are already there."""
    objective = TargetTimesWeight()
    objective.weight.grad = torch.tensor(10.0)
    accumulated(solution, ((2, 4),), objective)
    if not is_close(found := float(objective.weight.grad), 13):
        raise Broken(f".grad was 10, and the micro-batch adds 3: afterwards it is {readable(found)} instead of 13")


@about("accumulate_gradients", hint="Return two sums: of the nats, undivided, and of the numbers of tokens.")
def returns_the_summed_nats_and_tokens(solution: Any) -> None:
    """It returns the summed nats, undivided, and the number of tokens."""
    for rows in CASES:
        found = expect_pair(
            accumulated(solution, rows, TargetTimesWeight()), "accumulate_gradients(...)", "nats, tokens"
        )
        nats, tokens = (expect_number(value, "accumulate_gradients(...)") for value in found)
        wanted = sum(target for row in rows for target in row if target != IGNORE)
        if not is_close(nats, wanted) or tokens != count(rows):
            raise Broken(
                f"targets {targets_of(rows)}, a loss of 1 * target: returned {readable(nats)} nats and "
                f"{readable(tokens)} tokens instead of {wanted} and {count(rows)}"
            )


@about("accumulate_gradients", hint="detach() gives the number without the graph behind it.")
def returns_numbers_without_a_graph(solution: Any) -> None:
    """The nats that it returns carry no graph, which would keep every micro-batch's activations in memory."""
    nats, _ = expect_pair(
        accumulated(solution, ((2, 4),), TargetTimesWeight()), "accumulate_gradients(...)", "nats, tokens"
    )
    if isinstance(nats, Tensor) and nats.requires_grad:
        raise Broken("the returned nats require a gradient: the activations of all micro-batches stay in memory")


@about("accumulate_gradients", hint="Return tensors of shape (), on the device where the loss was computed.")
def returns_tensors(solution: Any) -> None:
    """Both results are tensors of shape (): a Python number would wait for the device at every step."""
    found = expect_pair(
        accumulated(solution, ((2, 4), (6, 8)), TargetTimesWeight()), "accumulate_gradients()", "nats, tokens"
    )
    for value, name in zip(found, ("nats", "tokens"), strict=True):
        expect_tensor(value, f"the {name} that accumulate_gradients(...) returned")


@about(
    "accumulate_gradients",
    hint="One micro-batch after another: forward, backward, then the next. A sum of losses that is differentiated at "
    "the end keeps the activations of all of them.",
)
def one_micro_batch_is_in_memory_at_a_time(solution: Any) -> None:
    """Each micro-batch is read once, and its gradient is computed before the next one is read."""
    objective, computed = TargetTimesWeight(), list[float]()

    def reading() -> Iterator[Batch]:
        for number, batch in enumerate(micro_batches((2,), (4,), (6,))):
            gradient = 0.0 if objective.weight.grad is None else float(objective.weight.grad)
            if number and gradient in (0.0, *computed):
                raise Broken(
                    f"micro-batch {number} was read before the gradient of micro-batch {number - 1} was computed"
                )
            computed.append(gradient)
            yield batch

    solution.accumulate_gradients(objective, reading(), 3)


PROPERTIES = (
    counts_all_targets_but_padding, gradient_is_that_of_the_mean_over_all_tokens, adds_to_the_gradients_that_are_there,
    one_micro_batch_is_in_memory_at_a_time, returns_the_summed_nats_and_tokens, returns_numbers_without_a_graph,
    returns_tensors,
)  # fmt: skip
