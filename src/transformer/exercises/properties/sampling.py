"""Properties of keep_top_k, keep_top_p and filter_logits: which tokens may be drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from transformer.exercises.property import Broken, about, difference, expect_tensor, random, readable

HALVES = (0.5, 0.25, 0.125, 0.125)
"""Probabilities of four tokens, as in the lesson."""


def logits_of(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities).log()


def kept(found: object, call: str, logits: Tensor) -> list[int]:
    """Returns the ids whose logits are left as they were. Raises Broken if others are not -inf."""
    filtered = expect_tensor(found, call, V=len(logits))
    for token, (new, old) in enumerate(zip(filtered.tolist(), logits.tolist(), strict=True)):
        if new not in (old, -math.inf) and not abs(new - old) < 1e-5:
            raise Broken(
                f"{call}: the logit of token {token} was {readable(old)} and is {readable(new)}; a token is kept as it "
                "is, or gets -inf"
            )
    return [token for token, new in enumerate(filtered.tolist()) if new > -math.inf]


@about("keep_top_k", hint="torch.topk gives the k largest; the smallest of them is the bound.")
def top_k_keeps_the_k_largest(solution: Any) -> None:
    """keep_top_k keeps the k largest logits, wherever they are, and sets the others to -inf."""
    for probabilities in ((0.7, 0.3), (0.1, 0.6, 0.3), (0.2, 0.1, 0.4, 0.3)):
        logits = logits_of(*probabilities)
        for k in range(1, len(probabilities) + 1):
            found = kept(solution.keep_top_k(logits.clone(), k), f"keep_top_k(logits, {k})", logits)
            wanted = sorted(sorted(range(len(logits)), key=lambda token: -probabilities[token])[:k])
            if found != wanted:
                raise Broken(
                    f"probabilities {readable(list(probabilities))}, k = {k}: kept {found} instead of {wanted}"
                )


@about("keep_top_k", hint="Compare with the k-th largest logit: everything that is not below it stays.")
def top_k_keeps_ties(solution: Any) -> None:
    """Logits equal to the k-th largest stay too: which of two equal tokens goes would be arbitrary."""
    for probabilities, k, wanted in (((0.5, 0.5), 1, [0, 1]), (HALVES, 3, [0, 1, 2, 3])):
        logits = logits_of(*probabilities)
        found = kept(solution.keep_top_k(logits.clone(), k), f"keep_top_k(logits, {k})", logits)
        if found != wanted:
            raise Broken(
                f"probabilities {readable(list(probabilities))}, k = {k}: kept {found} instead of {wanted}; the others "
                "are as likely as the last one kept"
            )


@about("keep_top_k", hint="torch.topk fails for more than there are: limit k to the size of the vocabulary.")
def top_k_above_the_vocabulary_keeps_all(solution: Any) -> None:
    """A k above the size of the vocabulary keeps everything."""
    logits = logits_of(0.7, 0.3)
    try:
        found = kept(solution.keep_top_k(logits.clone(), 5), "keep_top_k(logits, 5)", logits)
    except (RuntimeError, IndexError) as error:
        raise Broken(f"2 tokens, k = 5: {type(error).__name__} instead of all tokens") from error
    if found != [0, 1]:
        raise Broken(f"2 tokens, k = 5: kept {found} instead of both")


@about(
    "keep_top_p",
    hint="Sort the probabilities, most likely first. A token stays if the sum of those BEFORE it is still below p: so "
    "the token that reaches p stays, and the first one always does.",
)
def top_p_keeps_the_fewest_that_reach_p(solution: Any) -> None:
    """keep_top_p keeps the fewest of the most likely tokens whose probabilities reach p, the one that crosses p too."""
    cases = (((0.7, 0.3), 0.5, [0]), ((0.7, 0.3), 0.8, [0, 1]), ((0.6, 0.3, 0.1), 0.8, [0, 1]),
             ((0.4, 0.3, 0.2, 0.1), 0.65, [0, 1]), ((0.4, 0.3, 0.2, 0.1), 0.75, [0, 1, 2]))  # fmt: skip
    for probabilities, p, wanted in cases:
        logits = logits_of(*probabilities)
        found = kept(solution.keep_top_p(logits.clone(), p), f"keep_top_p(logits, {p})", logits)
        if found != wanted:
            total = sum(probabilities[token] for token in found)
            raise Broken(
                f"probabilities {readable(list(probabilities))}, p = {p}: kept the tokens {found}, whose sum is "
                f"{readable(total)}, instead of {wanted}"
            )


@about("keep_top_p", hint="After sorting, what stays must be found again at its own id: sort() also returns indices.")
def top_p_finds_tokens_in_any_order(solution: Any) -> None:
    """The order of the ids does not matter."""
    for probabilities, wanted in (((0.3, 0.7), [1]), ((0.1, 0.6, 0.3), [1]), ((0.1, 0.3, 0.2, 0.4), [1, 3])):
        logits = logits_of(*probabilities)
        found = kept(solution.keep_top_p(logits.clone(), 0.55), "keep_top_p(logits, 0.55)", logits)
        if found != wanted:
            raise Broken(
                f"probabilities {readable(list(probabilities))}, p = 0.55: kept the tokens {found} instead of {wanted}"
            )


def check_rows(name: str, filtered: Callable[[Tensor], object]) -> None:
    """Raises Broken if a row of logits is filtered in another way than alone."""
    rows = torch.stack([logits_of(0.7, 0.2, 0.1), logits_of(0.2, 0.3, 0.5)])
    together = expect_tensor(filtered(rows.clone()), f"{name} of logits (2, 3)", B=2, V=3)
    for number, row in enumerate(rows):
        alone = expect_tensor(filtered(row.clone()), f"{name} of logits (3,)", V=3)
        if together[number].tolist() != alone.tolist():
            raise Broken(
                f"{name} of two rows: row {number} is {readable(together[number])}, alone it is {readable(alone)}"
            )


@about("keep_top_k", hint="The last dimension holds the vocabulary; [..., -1:] keeps a dimension for broadcasting.")
def top_k_treats_each_row_alone(solution: Any) -> None:
    """keep_top_k filters each row of logits (B, V) as if it were alone."""
    check_rows("keep_top_k", lambda logits: solution.keep_top_k(logits, 2))


@about("keep_top_p", hint="The dimension to sort and to sum over is the last one: dim=-1.")
def top_p_treats_each_row_alone(solution: Any) -> None:
    """keep_top_p filters each row of logits (B, V) as if it were alone."""
    check_rows("keep_top_p", lambda logits: solution.keep_top_p(logits, 0.6))


@about(
    "filter_logits",
    hint="Temperature divides the logits, before anything else: probabilities become p^(1/t), and top-p sees those.",
)
def temperature_comes_first(solution: Any) -> None:
    """Temperature divides the logits, and comes before top-p."""
    logits = logits_of(*HALVES)
    call = "filter_logits(logits, temperature, top_k, top_p)"
    plain = expect_tensor(solution.filter_logits(logits.clone(), 0.5, None, 1.0), call, V=4)
    if difference(plain.softmax(-1), (logits / 0.5).softmax(-1)) is not None:
        raise Broken(
            f"probabilities {readable(list(HALVES))}, temperature 0.5 and no filter: {readable(plain.softmax(-1))} "
            f"instead of {readable((logits / 0.5).softmax(-1))}"
        )
    probabilities = (0.4, 0.3, 0.2, 0.1)
    logits = logits_of(*probabilities)
    for temperature, top_p, wanted in ((0.5, 0.75, [0, 1]), (100.0, 0.6, [0, 1, 2])):
        found = expect_tensor(solution.filter_logits(logits.clone(), temperature, None, top_p), call, V=4)
        if (stayed := [token for token in range(4) if found[token] > -math.inf]) != wanted:
            raise Broken(
                f"probabilities {readable(list(probabilities))}, temperature {temperature:g}, top_p = {top_p}: kept "
                f"{stayed} instead of {wanted}; after the temperature the probabilities are "
                f"{readable((logits / temperature).softmax(-1))}"
            )


@about("filter_logits", hint="top-p sees the probabilities of what top-k has left, which sum to 1 again.")
def top_k_comes_before_top_p(solution: Any) -> None:
    """top-k comes before top-p; None and 1.0 switch them off."""
    logits = logits_of(*HALVES)
    call = "filter_logits(logits, temperature, top_k, top_p)"
    for top_k, top_p, wanted in ((2, 1.0, [0, 1]), (None, 0.6, [0, 1]), (2, 0.6, [0]), (None, 1.0, [0, 1, 2, 3])):
        found = expect_tensor(solution.filter_logits(logits.clone(), 1.0, top_k, top_p), call, V=4)
        stayed = [token for token in range(4) if found[token] > -math.inf]
        if stayed != wanted:
            raise Broken(
                f"probabilities {readable(list(HALVES))}, top_k = {top_k}, top_p = {top_p}: kept {stayed} instead of "
                f"{wanted}"
            )


@about("keep_top_k", hint="masked_fill returns a new tensor, masked_fill_ and logits[...] = change the caller's.")
def leaves_the_logits_alone(solution: Any) -> None:
    """The logits that the caller passed are the same afterwards."""
    logits = random(4)
    given = logits.clone()
    calls = {
        "keep_top_k": lambda: solution.keep_top_k(given, 2),
        "keep_top_p": lambda: solution.keep_top_p(given, 0.5),
        "filter_logits": lambda: solution.filter_logits(given, 0.5, 2, 0.5),
    }
    for name, call in calls.items():
        call()
        if not torch.equal(given, logits):
            raise Broken(f"{name} changed the logits that the caller passed: {readable(given)}")


PROPERTIES = (
    top_k_keeps_the_k_largest, top_k_keeps_ties, top_k_above_the_vocabulary_keeps_all,
    top_k_treats_each_row_alone, top_p_keeps_the_fewest_that_reach_p, top_p_finds_tokens_in_any_order,
    top_p_treats_each_row_alone,
    temperature_comes_first, top_k_comes_before_top_p, leaves_the_logits_alone,
)  # fmt: skip
