"""Properties of inputs_and_targets(rows) and of next_token_loss(hidden, weight, targets)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from transformer.config import IGNORE
from transformer.exercises.property import (
    Broken,
    about,
    expect_number,
    expect_pair,
    expect_tensor,
    is_close,
    random,
    readable,
)


@about(
    "inputs_and_targets",
    hint="The target of a position is the token after it. Of T + 1 tokens, the last has no target and the first is no "
    "target, so both results have T columns.",
)
def targets_are_the_next_tokens(solution: Any) -> None:
    """Rows (B, T + 1) give inputs and targets (B, T): the target of a token is the one that follows it."""
    for length in (2, 3, 4):
        row = torch.arange(5, 5 + length)[None]
        call = f"inputs_and_targets({row.tolist()})"
        found = expect_pair(solution.inputs_and_targets(row), call, "inputs, targets")
        for name, tensor, wanted in zip(("inputs", "targets"), found, (row[:, :-1], row[:, 1:]), strict=True):
            if not isinstance(tensor, Tensor) or tensor.tolist() != wanted.tolist():
                shown = tensor.tolist() if isinstance(tensor, Tensor) else tensor
                raise Broken(f"{call}: the {name} are {shown} instead of {wanted.tolist()}")


def losses(solution: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[float, float]:
    """Returns nats and count as numbers."""
    call = "next_token_loss(hidden, weight, targets)"
    nats, count = expect_pair(solution.next_token_loss(hidden, weight, targets), call, "nats, count")
    expect_tensor(nats, f"the first value of {call}")
    return expect_number(nats, f"the first value of {call}"), expect_number(count, f"the second value of {call}")


def of_logits(*rows: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Returns hidden and weight whose products are these logits (N, V): the weight is the identity."""
    return torch.tensor(rows), torch.eye(len(rows[0]))


@about(
    "next_token_loss",
    hint="logits = hidden weight^T, (N, V). The loss of a position is minus the natural logarithm of the probability "
    "of its target.",
)
def one_position_by_hand(solution: Any) -> None:
    """Logits [0, ln 3] give the probabilities 1/4 and 3/4: the loss is ln 4 for target 0 and ln(4/3) for target 1."""
    for target, wanted in ((0, math.log(4)), (1, math.log(4 / 3))):
        nats, _ = losses(solution, *of_logits((0.0, math.log(3))), torch.tensor([target]))
        if not is_close(nats, wanted):
            others = {"its base is 2": wanted / math.log(2), "its sign is wrong": -wanted}
            said = next((f"; {why}" for why, other in others.items() if is_close(nats, other)), "")
            raise Broken(
                f"logits [0, ln 3], target {target}: the loss is {readable(nats)} instead of {readable(wanted)}{said}"
            )


@about("next_token_loss", hint="Row v of weight belongs to token v: the logit of v is hidden . weight[v].")
def logits_are_products_with_the_rows_of_weight(solution: Any) -> None:
    """The logit of token v is the dot product of the hidden vector and row v of weight."""
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    nats, _ = losses(solution, torch.tensor([[1.0, 1.0]]), weight, torch.tensor([1]))
    wanted = math.log(math.e + math.e**2 + 1) - 2
    if not is_close(nats, wanted):
        raise Broken(
            f"hidden [1, 1], weight [[1, 0], [0, 2], [0, 0]] gives the logits [1, 2, 0]; with target 1 the loss is "
            f"{readable(nats)} instead of {readable(wanted)}"
        )


@about(
    "next_token_loss",
    hint="The targets already are the next tokens: inputs_and_targets has shifted them. Position n is judged by "
    "targets[n].",
)
def position_n_belongs_to_target_n(solution: Any) -> None:
    """Position n is compared with targets[n]; nothing is shifted here."""
    hidden, weight = of_logits((9.0, 0.0, 0.0), (0.0, 9.0, 0.0), (0.0, 0.0, 9.0))
    nats, count = losses(solution, hidden, weight, torch.tensor([0, 1, 2]))
    if nats > 0.1 or count != 3:
        raise Broken(
            "three positions that are certain of the tokens 0, 1 and 2, with the targets 0, 1 and 2, have the loss "
            f"{readable(nats)} over {readable(count)} targets instead of about 0 over 3"
        )


@about(
    "next_token_loss",
    hint="Return the sum, not the mean: sums of batches of any size can be added, means cannot. The division comes at "
    "the end, outside.",
)
def positions_are_summed(solution: Any) -> None:
    """The loss of several positions is the sum of their losses, and the count is their number."""
    for positions in (2, 3):
        hidden, weight = of_logits(*[(0.0, 0.0)] * positions)
        nats, count = losses(solution, hidden, weight, torch.zeros(positions, dtype=torch.int64))
        wanted = positions * math.log(2)
        if not is_close(nats, wanted):
            mean = "; that is the mean" * is_close(nats, math.log(2))
            raise Broken(
                f"{positions} positions with a loss of ln 2 each: {readable(nats)} instead of {readable(wanted)}{mean}"
            )
        if count != positions:
            raise Broken(f"{positions} targets, none of them {IGNORE}: the count is {readable(count)}")


@about("next_token_loss", hint=f"A target of {IGNORE} marks padding: neither its loss nor its position counts.")
def padding_does_not_count(solution: Any) -> None:
    """Positions whose target is IGNORE (-100) add nothing to the loss or to the count."""
    hidden, weight = of_logits((0.0, 0.0), (3.0, 1.0))
    nats, count = losses(solution, hidden, weight, torch.tensor([0, IGNORE]))
    if not is_close(nats, math.log(2)):
        raise Broken(
            f"two positions, the second with target {IGNORE}: the loss is {readable(nats)} instead of ln 2 = "
            f"{readable(math.log(2))}, that of the first alone"
        )
    if count != 1:
        raise Broken(f"two positions, the second with target {IGNORE}: the count is {readable(count)} instead of 1")
    if losses(solution, hidden, weight, torch.tensor([IGNORE, IGNORE])) != (0, 0):
        raise Broken(f"two positions with target {IGNORE}: the loss and the count must both be 0")


@about(
    "next_token_loss",
    hint="exp(1000) is infinite in a float. ln(sum of exp) can be computed after subtracting the largest logit: see "
    "torch.logsumexp.",
)
def stays_finite(solution: Any) -> None:
    """Logits of a thousand give a finite loss."""
    nats, _ = losses(solution, *of_logits((1_000.0, 0.0)), torch.tensor([1]))
    if not is_close(nats, 1_000):
        raise Broken(f"logits [1000, 0] with target 1: the loss is {readable(nats)} instead of 1000")


@about("next_token_loss", hint="Keep tensors all the way: .item(), float() and .detach() cut the graph.")
def gradient_is_probability_minus_truth(solution: Any) -> None:
    """The gradient with respect to a logit is p - 1 for the target and p for every other token."""
    hidden, weight = random(2, 3), torch.eye(3)
    hidden.requires_grad_()
    nats, _ = expect_pair(
        solution.next_token_loss(hidden, weight, torch.tensor([2, 0])), "next_token_loss()", "nats, count"
    )
    if not nats.requires_grad:
        raise Broken("the loss has no gradient: it does not depend on hidden any more")
    (found,) = torch.autograd.grad(nats, hidden)
    wanted = hidden.detach().softmax(-1) - torch.eye(3)[[2, 0]]
    if not torch.allclose(found, wanted, atol=1e-5):
        raise Broken(
            f"logits {readable(hidden.detach())}, targets [2, 0]: the gradient is {readable(found)} instead of "
            f"{readable(wanted)}"
        )


PROPERTIES = (
    targets_are_the_next_tokens, one_position_by_hand, logits_are_products_with_the_rows_of_weight,
    position_n_belongs_to_target_n, positions_are_summed, padding_does_not_count, stays_finite,
    gradient_is_probability_minus_truth,
)  # fmt: skip
