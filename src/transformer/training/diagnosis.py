r"""The diagnosis of a run: learning, overfitting or underfitting, and the evidence for it.

**The problem.** After an epoch there are two numbers, train loss 3.41 and validation loss 3.52. Is that good? One pair
of numbers does not say. Two curves do: whether each of them falls, and how certain that is.

**What goes wrong.** The loss on new text has, roughly, three parts:

    loss = entropy of the text  +  bias                    +  variance
           no model goes below     what the model cannot      patterns that hold in the training text
                                   or did not yet learn       only by accident

Bias raises both curves. Variance raises only validation: an accident of the training text helps on the training text.
So the *gap*, validation minus train, shows variance. It shrinks with more text and grows each time the same text is
read. Both curves flat, high and close: *underfitting*, all bias. Validation rises while train falls: *overfitting*, the
model now learns variance. Dropout, which is off in validation, raises the train loss and can even make the gap
negative, so the change of the gap says more than its size.

**The decision** rests on the last third of each curve, fitted by a line (trend.py). A change counts if it exceeds two
standard errors (more for few points, Student's t) and 0.01 nats, 1 % of perplexity. Less is flat. Then:

    validation falls                            learning         if the gap is above a tenth: memorising
    validation rises, train does not            overfitting      if train rises as well: diverging
    validation flat, train falls                overfitting      if the gap does not widen by 0.05: learning
    both flat, the learning rate high           underfitting     if the gap is above a tenth: overfitting
    both flat, the learning rate low            finished: the schedule ended the learning, not the model
    noise above 0.05 nats, or few points        uncertain

>>> train = [(step, 2.0 - 0.0012 * step + 0.008 * (-1) ** step, 2048) for step in range(5, 301, 5)]
>>> evaluations = [(0, 2.00, None), (100, 1.91, None), (200, 1.79, None), (300, 1.70, None)]
>>> print(diagnose(train, evaluations))
learning: validation falls by 0.102 ± 0.004 per 100 steps, train falls by 0.120 ± 0.001; gap 0.057 ± 0.008: go on

**Why not compare with the lowest loss so far?** Among ten evaluations that differ only by noise, chance picks it.
**Cost.** Nothing compared with a training step. **Is it working?** Runs that differ only in the seed get the same
diagnosis; if they do not, evaluate more often.

Papers: bias and variance, Geman et al. 1992, "Neural networks and the bias/variance dilemma"; text that is read many
times, arXiv 2305.16264; errors of evaluations and differences, arXiv 2411.00640; when to stop, Prechelt 1998, "Early
stopping - but when?"; validation loss that falls again, arXiv 1912.02292. Read before: trainer.py, scheduler.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from transformer.training.trend import WIDE, TrainPoint, Trend, ValidationPoint

Kind = Literal["learning", "memorising", "overfitting", "underfitting", "diverging", "finished", "uncertain"]
Point = TypeVar("Point", bound=tuple[int, float, Any])

ENOUGH = 5
"""Evaluations in the recent part, if the run has as many."""
LARGE_GAP = 0.1
"""A gap significantly above this fraction of the validation loss shows a memorised text."""
LOW_RATE = 0.25
"""Below this fraction of the peak learning rate, a flat curve says nothing about the model."""


@dataclass(frozen=True)
class Verdict:
    """The diagnosis, and in one line the evidence for it and what to try."""

    kind: Kind
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


def diagnose(
    train: Sequence[TrainPoint],
    validation: Sequence[ValidationPoint],
    schedule_done: float = 0.0,
    lr_fraction: float = 1.0,
) -> Verdict:
    """Judges a run by the recent part of its curves; equal points give an equal verdict.

    train, validation: the whole run so far. schedule_done: fraction of the run's steps that is done; lr_fraction: the
    learning rate as a fraction of its peak. If a step is not above the one before it, the run resumed from an earlier
    state: points from there on are dropped.
    """
    for name, end in (("train", train[-1:]), ("validation", validation[-1:])):
        if end and not _is_loss(end[0][1]):
            advice = "go back to a checkpoint before it, with a lower learning rate"
            return Verdict("diverging", f"{name} loss is {end[0][1]} at step {end[0][0]:,}: {advice}")
    reports = [report for report in _one_branch(train) if _is_loss(report[1]) and report[2] > 0]
    evaluations = [point for point in _one_branch(validation) if _is_loss(point[1])]
    first, last = _recent([step for step, _, _ in reports], [step for step, _, _ in evaluations])
    reports = [report for report in reports if report[0] >= first]
    t = Trend.of([(step, loss, None) for step, loss, _ in reports], first, last, [tokens for _, _, tokens in reports])
    v = Trend.of([point for point in evaluations if point[0] >= first], first, last)
    kind, advice = _decide(v, t, schedule_done, lr_fraction)
    if kind == "overfitting":
        advice += f"; validation was lowest at step {min(evaluations, key=lambda point: point[1])[0]:,}"
    return Verdict(kind, f"{_evidence(v, t, last - first)}: {advice}")


def no_longer_improves(validation: Sequence[ValidationPoint], patience: int) -> bool:
    """Whether `patience` or more evaluations followed the lowest loss, and they do not fall significantly.

    That takes FEWEST evaluations after the lowest, even for a smaller patience. A loss that is not finite is never the
    lowest; if the last one is not finite, patience alone decides. Raises ValueError for a patience below 1.
    """
    if patience < 1:
        raise ValueError(f"patience={patience} must be 1 or more: the number of evaluations to wait for a lower loss")
    points = _one_branch(validation)
    losses = [loss if _is_loss(loss) else math.inf for _, loss, _ in points]
    since = points[losses.index(min(losses)) + 1 :] if points else []
    if len(since) < patience or not _is_loss(since[-1][1]):
        return len(since) >= patience
    trend = Trend.of([(step, loss, None) for step, loss, _ in since if _is_loss(loss)], since[0][0], since[-1][0])
    return trend is not None and trend.direction in ("flat", "rises")


def _decide(v: Trend | None, t: Trend | None, schedule_done: float, lr_fraction: float) -> tuple[Kind, str]:
    """Returns the kind and the advice: the table of the lesson, line by line."""
    validation, train = (trend.direction if trend else "unclear" for trend in (v, t))
    gap = v - t if v and t else None
    remedy = "more text, more dropout or a smaller model"
    is_large = v is not None and gap is not None and gap.level - 2 * gap.level_error > LARGE_GAP * v.level
    if not v and not t:
        return "uncertain", "a verdict takes four evaluations"
    if validation == "falls" and is_large:
        return "memorising", "train is far below validation: more text would help more than more steps"
    if validation == "falls":
        return "learning", "go on" if schedule_done < 1 else "a longer run would learn more"
    if validation == "rises" and train == "rises":
        return "diverging", "a lower learning rate"
    if validation == "rises" and (train != "unclear" or (gap and gap.direction == "rises")):
        return "overfitting", f"stop, or {remedy}"
    if validation != "flat" or train == "unclear" or not (v and gap):
        return "uncertain", "go on, and evaluate more often or on more text"
    if train == "falls" and gap.direction == "rises" and gap.change > WIDE:
        return "overfitting", f"this is how it begins: {remedy}"
    if train == "falls":
        return "learning", "go on, and watch the gap"
    if lr_fraction < LOW_RATE and schedule_done < 0.5:
        return "uncertain", "the learning rate is still warming up"
    if lr_fraction < LOW_RATE:
        return "finished", "the schedule is complete; to improve further: a longer one, more text or a larger model"
    if is_large:
        return "overfitting", f"the text is memorised: {remedy}"
    return "underfitting", f"the learning rate is at {lr_fraction:.0%} of its peak; try another, or a larger model"


def _evidence(v: Trend | None, t: Trend | None, steps: int) -> str:
    """Returns the slopes with their standard errors, per round number of steps, and the gap."""
    round_steps = 10 ** (len(str(max(1, steps))) - 1)
    if not v and not t:
        return "too few points"
    lines, unit = [], f" per {round_steps:,} steps" if round_steps > 1 else " per step"
    for name, trend in (("validation", v), ("train", t)):
        if trend is None:
            lines.append(f"{name} has too few points for a slope with an error")
            continue
        moves = trend.direction in ("falls", "rises")
        verb = f"{trend.direction} by" if moves else f"is {trend.direction},"
        change, error = trend.change * round_steps / steps, trend.error * round_steps / steps
        lines.append(f"{name} {verb} {_with_error(abs(change) if moves else change, error)}{unit}")
        unit = ""
    if v and t:
        gap = v - t
        lines[-1] += f"; gap {_with_error(gap.level, gap.level_error)}"
        lines[-1] += {"rises": ", widening", "falls": ", narrowing"}.get(gap.direction, "")
    return ", ".join(lines)


def _with_error(value: float, error: float) -> str:
    """Returns a value with its error, rounded to the error's first digit, four decimals at most: 0.031 ± 0.004."""
    decimals = min(4, max(0, -math.floor(math.log10(error)))) if error > 0 else 4
    return f"{round(value, decimals) + 0.0:.{decimals}f} ± {error:.{decimals}f}"  # + 0.0: never -0


def _recent(reports: Sequence[int], evaluations: Sequence[int]) -> tuple[int, int]:
    """Returns the first and last step of the run's last third, extended to ENOUGH evaluations."""
    steps = [*reports, *evaluations] or [0]
    begin, last = min(steps), max(steps)
    third = min(step for step in steps if 3 * (last - step) <= last - begin)
    return min([third, *evaluations[-ENOUGH:]]), last


def _one_branch(points: Sequence[Point]) -> list[Point]:
    """Returns the points by ascending step: each drops all before it whose step is not smaller."""
    kept: list[Point] = []
    for point in points:
        while kept and kept[-1][0] >= point[0]:
            kept.pop()
        kept.append(point)
    return kept


def _is_loss(loss: float) -> bool:
    """Whether this can be a loss in nats: not nan, not infinite and not absurdly large."""
    return abs(loss) < 1e9
