"""Properties of lr_scale(step, total_steps, warmup, low): warm up in a line, then fall along a cosine."""

from __future__ import annotations

import itertools
import math
from typing import Any

from transformer.exercises.property import Broken, about, expect_number, is_close, readable

CASES = ((2, 1, 0.0), (3, 0, 0.1), (4, 2, 0.1), (6, 2, 0.1), (8, 4, 0.2), (20, 3, 0.5), (5, 2, 1.0), (1, 0, 0.0))
"""Steps in all, warm-up steps, and the lowest rate, mostly in increasing size."""


def scale(solution: Any, step: int, total: int, warmup: int, low: float) -> float:
    call = f"lr_scale({step}, {total}, {warmup}, {low:g})"
    return expect_number(solution.lr_scale(step, total, warmup, low), call)


@about(
    "lr_scale",
    hint="Steps count from 0. The first step of the warm-up already moves, and its last one, step w - 1, has the peak.",
)
def warm_up_rises_in_a_line_to_the_peak(solution: Any) -> None:
    """Step s of a warm-up of w steps has (s + 1) / w of the peak, so the last one has 1."""
    for total, warmup, low in CASES:
        for step in range(warmup):
            found, wanted = scale(solution, step, total, warmup, low), (step + 1) / warmup
            if not is_close(found, wanted):
                raise Broken(
                    f"{total} steps, {warmup} of warm-up: step {step} has {readable(found)} instead of "
                    f"{step + 1}/{warmup} = {readable(wanted)}"
                )


@about("lr_scale", hint="After its last step the run has arrived: from step n on, the rate is low and stays there.")
def it_ends_at_the_lowest_rate_and_stays(solution: Any) -> None:
    """From step n = total_steps on, the rate is low; it does not rise again."""
    for total, warmup, low in CASES:
        for step in (total, total + 1, 2 * total + 3):
            found = scale(solution, step, total, warmup, low)
            if not is_close(found, low):
                raise Broken(
                    f"{total} steps, {warmup} of warm-up, low = {low:g}: step {step}, after the end, has "
                    f"{readable(found)} instead of {low:g}"
                )


@about(
    "lr_scale",
    hint="t = (s - w + 1) / (n - w + 1) goes from 0, the last warm-up step, to 1, just after the last step. Put it "
    "into low + (1 - low) (1 + cos(pi t)) / 2.",
)
def it_falls_along_the_cosine(solution: Any) -> None:
    """After the warm-up: low + (1 - low) (1 + cos(pi t)) / 2 with t = (s - w + 1) / (n - w + 1)."""
    for total, warmup, low in CASES:
        for step in range(warmup, total):
            t = (step - warmup + 1) / (total - warmup + 1)
            wanted = low + (1 - low) * (1 + math.cos(math.pi * t)) / 2
            if not is_close(found := scale(solution, step, total, warmup, low), wanted):
                raise Broken(
                    f"{total} steps, {warmup} of warm-up, low = {low:g}: step {step} has {readable(found)} instead of "
                    f"{readable(wanted)} (t = {step - warmup + 1}/{total - warmup + 1})"
                )


@about("lr_scale", hint="Compare the last step before a change with the first one after it.")
def it_never_rises_after_the_peak(solution: Any) -> None:
    """It stays between 0 and 1, no step of the run has 0, and it never rises after the peak."""
    for total, warmup, low in CASES:
        rates = [scale(solution, step, total, warmup, low) for step in range(2 * total + 2)]
        for step, rate in enumerate(rates):
            if not 0 <= rate <= 1 + 1e-9 or (rate == 0 and step < total):
                raise Broken(f"{total} steps, {warmup} of warm-up, low = {low:g}: step {step} has {readable(rate)}")
        for step, (rate, following) in enumerate(itertools.pairwise(rates)):
            if step >= warmup - 1 and following > rate + 1e-9:
                raise Broken(
                    f"{total} steps, {warmup} of warm-up, low = {low:g}: the rate rises from {readable(rate)} at step "
                    f"{step} to {readable(following)}"
                )


PROPERTIES = (
    warm_up_rises_in_a_line_to_the_peak, it_ends_at_the_lowest_rate_and_stays, it_falls_along_the_cosine,
    it_never_rises_after_the_peak,
)  # fmt: skip
