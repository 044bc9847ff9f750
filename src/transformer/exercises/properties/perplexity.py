"""Properties of perplexity(batches) and bits_per_byte(nats, text_bytes)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from transformer.config import IGNORE
from transformer.exercises.property import Broken, about, expect_number, is_close, readable

Batches = list[tuple[Tensor, Tensor]]


def batches_of(*probabilities: Sequence[float]) -> Batches:
    """Returns one batch for each sequence: two tokens, and the probability of the token that came, at each position."""
    found = []
    for batch in probabilities:
        right = torch.tensor(batch)
        found.append((torch.stack([right, 1 - right], dim=-1).log(), torch.zeros(len(batch), dtype=torch.int64)))
    return found


def measured(solution: Any, batches: Batches) -> float:
    return expect_number(solution.perplexity(batches), "perplexity(batches)")


@about("perplexity", hint="The loss is a mean of -ln p; perplexity is its exponential, base e on both sides.")
def uniform_predictions_have_the_perplexity_of_the_vocabulary(solution: Any) -> None:
    """Equal logits over V tokens have perplexity V."""
    for vocabulary in (2, 3, 50):
        found = measured(solution, [(torch.zeros(1, vocabulary), torch.tensor([1]))])
        if not is_close(found, vocabulary):
            loss = "; that is the loss" * is_close(found, math.log(vocabulary))
            raise Broken(
                f"one position with equal logits over {vocabulary} tokens: {readable(found)} instead of {vocabulary}"
                + loss
            )


@about("perplexity", hint="First the mean of the losses, then the exponential: the other order gives another number.")
def positions_are_averaged_before_the_exponential(solution: Any) -> None:
    """The exponential comes after the mean: probabilities 1/2 and 1/8 have perplexity sqrt(2 * 8) = 4."""
    found = measured(solution, batches_of((0.5, 0.125)))
    if not is_close(found, 4):
        mean = "; 5 is the mean of the exponentials, (2 + 8) / 2" * is_close(found, 5)
        raise Broken(f"one batch, probabilities [1/2, 1/8]: {readable(found)} instead of 4{mean}")


@about(
    "perplexity",
    hint="Add up the losses and the counts over all batches, divide once, and take the exponential last.",
)
def batches_are_summed_before_the_mean(solution: Any) -> None:
    """Every token counts the same, whatever batch it is in."""
    cases = (((0.5,), (0.125,)), ((0.5, 0.5, 0.5), (0.125,)), ((0.25,), (0.5, 0.5, 0.125)))
    for batches in cases:
        found = measured(solution, batches_of(*batches))
        nats = [-math.log(p) for batch in batches for p in batch]
        wanted = math.exp(sum(nats) / len(nats))
        if not is_close(found, wanted):
            means = [sum(-math.log(p) for p in batch) / len(batch) for batch in batches]
            others = {
                "the mean of the batches' perplexities": sum(map(math.exp, means)) / len(means),
                "the exponential of the mean of the batches' means": math.exp(sum(means) / len(means)),
                "the perplexity of the last batch": math.exp(means[-1]),
            }
            said = next((f"; that is {name}" for name, other in others.items() if is_close(found, other)), "")
            shown = " and ".join(readable(list(batch)) for batch in batches)
            raise Broken(f"two batches, probabilities {shown}: {readable(found)} instead of {readable(wanted)}{said}")


@about(
    "perplexity", hint=f"Positions whose target is {IGNORE} are padding: leave them out of the sum and of the count."
)
def padding_does_not_count(solution: Any) -> None:
    """Positions whose target is IGNORE (-100) count neither in the sum nor in the number of tokens."""
    ((logits, _),) = batches_of((0.5, 0.125))
    found = measured(solution, [(logits, torch.tensor([0, IGNORE]))])
    if not is_close(found, 2):
        raise Broken(
            f"probabilities [1/2, 1/8], the second target {IGNORE}: {readable(found)} instead of 2, that of the first "
            "position alone"
        )


@about("bits_per_byte", hint="One bit is ln 2 nats. The division is by the bytes of the text, not by tokens.")
def a_bit_is_ln_2_nats(solution: Any) -> None:
    """80 ln 2 nats for 40 bytes of text are 2 bits per byte."""
    for nats, size, wanted in ((math.log(2), 1, 1.0), (80 * math.log(2), 40, 2.0)):
        found = expect_number(solution.bits_per_byte(nats, size), f"bits_per_byte({nats:.4g}, {size})")
        if not is_close(found, wanted):
            raise Broken(f"bits_per_byte({nats:.4g}, {size}) is {readable(found)} instead of {readable(wanted)}")


PROPERTIES = (
    uniform_predictions_have_the_perplexity_of_the_vocabulary, positions_are_averaged_before_the_exponential,
    batches_are_summed_before_the_mean, padding_does_not_count, a_bit_is_ln_2_nats,
)  # fmt: skip
