r"""The verdict on a run: learning, overfitting or underfitting, and how sure that is.

**The problem.** After an epoch there are two numbers, train loss 3.41 and validation loss 3.52. Is that good? One pair
of numbers cannot say. Two curves can: where each of them goes, and how sure it is that they go there.

**What goes wrong.** The loss on new text has, roughly, three parts:

    loss = entropy of the text  +  bias                    +  variance
           nobody goes below       what the model cannot      what it took for a rule, and was an accident
                                   or did not yet learn       of the text that it happened to read

Bias raises both curves. Variance raises validation alone: an accident of the training text is true of the training
text. So the *gap*, validation minus train, shows variance; it shrinks with more text and grows with the number of
times that the same text is read. Both curves flat, high and close: *underfitting*, all bias. Validation rises while
train falls: *overfitting*, what is learnt now is variance. Dropout, off in validation, lifts the train loss and can
even turn the sign of the gap; where the gap goes says more than where it stands.

**Slopes with errors.** The recent part of a curve, its last third, is nearly a line y = a + b x, plus noise. Least
squares finds the line, and how far the points lie off it says how far off b may be (w: tokens behind a point):

    b = sum w (x - mean x)(y - mean y) / sum w (x - mean x)^2                            r = y - a - b x
    standard error of b = sqrt( sum w r^2 / (n - 2) / sum w (x - mean x)^2 )

By hand, four looks at validation: deviations of x are -150, -50, 50, 150 and of y 0.15, 0.06, -0.06, -0.15, so b is
-51 / 50000, -0.102 in 100 steps. The r are 3, 9, 9 and 3 thousandths: sqrt(0.00018 / 2 / 50000), 0.004 in 100 steps.

>>> train = [(step, 2.0 - 0.0012 * step + 0.008 * (-1) ** step, 2048) for step in range(5, 301, 5)]
>>> looks = [(0, 2.00, None), (100, 1.91, None), (200, 1.79, None), (300, 1.70, None)]
>>> print(verdict(train, looks))
learning: validation falls by 0.102 ± 0.004 per 100 steps, train falls by 0.120 ± 0.001; gap 0.057 ± 0.008: go on

**Levels and differences.** The validation text is a sample: another one of its size would score higher or lower, by
some hundredths of a nat. But every look reads the same sample. What is hard in it is as hard at the next look, so this
error is shared and cancels in differences: slopes are far surer than the loss itself. It does count in the gap, since
train is another sample. And it serves where looks are too few to scatter: their differences are surer than if
their errors had nothing in common.

**The decision.** A change over the recent part is believed where it exceeds two standard errors (more for few points,
Student's t), and it matters from 0.01 nats on, 1 % of perplexity. Less is flat. Then:

    validation falls                            learning
    validation rises, train does not            overfitting      where train rises as well: diverging
    validation flat, train falls                overfitting      where the gap does not widen by 0.05: learning
    both flat, the learning rate high           underfitting     where the gap is above a tenth: overfitting
    both flat, the learning rate low            finished: the schedule has ended the learning, not the model
    more than 0.05 nats in doubt, few points    uncertain

**Cost.** Nothing beside a training step. **Not chosen.** The lowest loss so far as a yardstick: among ten looks that
are equal but for noise, chance picks it. A line in log(step): straighter over a whole run, over a third no better.
**Is it working?** The verdicts of two runs that differ in the seed alone agree; where they do not, look more often.

Papers: bias and variance, Geman et al. 1992, "Neural networks and the bias/variance dilemma"; text that is read many
times, arXiv 2305.16264; errors of evaluations and differences, arXiv 2411.00640; when to stop, Prechelt 1998, "Early
stopping - but when?"; where validation falls again, arXiv 1912.02292. Read before: trainer.py, scheduler.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

import numpy as np

Kind = Literal["learning", "overfitting", "underfitting", "diverging", "finished", "uncertain"]
TrainPoint = tuple[int, float, int]
ValidationPoint = tuple[int, float, float | None]
Point = TypeVar("Point", bound=tuple[int, float, Any])

FEWEST, ENOUGH = 4, 5
"""Points that a line with an error needs: two for the line, two to lie off it; and looks that the recent part holds."""
SMALL, WIDE = 0.01, 0.05
"""Nats over the recent part: a change below SMALL is flat; where more than WIDE is in doubt, nothing is flat, and a gap
that widens by more while validation is flat is the beginning of overfitting."""
LARGE_GAP = 0.1
"""A gap that is surely above this share of the validation loss is a text learnt by heart."""
LOW_RATE = 0.25
"""Below this share of the peak learning rate, a flat curve says nothing about the model."""


@dataclass(frozen=True)
class Verdict:
    """How a run goes, and in one line the evidence for it and what to try."""

    kind: Kind
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


def verdict(
    train: Sequence[TrainPoint],
    validation: Sequence[ValidationPoint],
    schedule_done: float = 0.0,
    lr_share: float = 1.0,
) -> Verdict:
    """Judges a run by the recent part of its curves; the same points give the same verdict, bit for bit.

    train: (step, nats a token over the steps since the point before, tokens in it), the whole run so far.
    validation: (step, nats a token, standard error of that as a level, or None), the whole run so far.
    schedule_done: the share of the run's steps that is done; lr_share: the learning rate as a share of its peak.

    Where a step is not above the one before it, the run went back: what it had reached from there on is forgotten.
    """
    for name, end in (("train", train[-1:]), ("validation", validation[-1:])):
        if end and not _is_loss(end[0][1]):
            advice = "go back to a checkpoint before it, with a lower learning rate"
            return Verdict("diverging", f"{name} loss is {end[0][1]} at step {end[0][0]:,}: {advice}")
    reports = [report for report in _one_branch(train) if _is_loss(report[1]) and report[2] > 0]
    looks = [look for look in _one_branch(validation) if _is_loss(look[1])]
    first, last = _recent([step for step, _, _ in reports], [step for step, _, _ in looks])
    reports = [report for report in reports if report[0] >= first]
    t = Trend.of([(step, loss, None) for step, loss, _ in reports], first, last, [tokens for _, _, tokens in reports])
    v = Trend.of([look for look in looks if look[0] >= first], first, last)
    kind, advice = _decide(v, t, schedule_done, lr_share)
    if kind == "overfitting":
        advice += f"; validation was lowest at step {min(looks, key=lambda look: look[1])[0]:,}"
    return Verdict(kind, f"{_evidence(v, t, last - first)}: {advice}")


def no_longer_improves(validation: Sequence[ValidationPoint], patience: int) -> bool:
    """Whether the lowest loss is `patience` looks old or older, and the looks since then surely do not fall.

    To be sure takes FEWEST looks since the lowest, however small the patience. A loss that is no finite number is never
    the lowest; where the last is none, patience alone decides. Raises ValueError for a patience below 1.
    """
    if patience < 1:
        raise ValueError(f"patience={patience} must be 1 or more: the number of looks to wait for a lower loss")
    looks = _one_branch(validation)
    losses = [loss if _is_loss(loss) else math.inf for _, loss, _ in looks]
    since = looks[losses.index(min(losses)) + 1 :] if looks else []
    if len(since) < patience or not _is_loss(since[-1][1]):
        return len(since) >= patience
    trend = Trend.of([(step, loss, None) for step, loss, _ in since if _is_loss(loss)], since[0][0], since[-1][0])
    return trend is not None and trend.direction in ("flat", "rises")


@dataclass(frozen=True)
class Trend:
    """A line through the recent part of a curve; all in nats.

    change and error: over the whole part; sure: what the change must exceed to be believed; level and level_error: the
    line at the last step; steady: every point lies on the same side of the one before.
    """

    change: float
    error: float
    sure: float
    level: float
    level_error: float
    steady: bool = False

    @classmethod
    def of(
        cls, points: Sequence[ValidationPoint], first: int, last: int, tokens: Sequence[int] | None = None
    ) -> Self | None:
        """Fits the change from step `first` to `last`, points weighing as their tokens; None for too few points."""
        n, samples = len(points), np.array([error or math.nan for _, _, error in points])
        known = n > 1 and all(0 < error < 1e9 for error in samples)
        if n < FEWEST and not known:
            return None
        x = np.array([(step - last) / (last - first) for step, _, _ in points])  # -1 to 0: the unit of steps drops out
        y = np.array([loss for _, loss, _ in points])
        w = np.array(tokens or [1] * n) / sum(tokens or [1] * n)
        middle, mean = float(np.sum(w * x)), float(np.sum(w * y))
        dx, dy = x - middle, y - mean
        spread = float(np.sum(w * dx**2))
        if spread == 0:
            return None
        change = float(np.sum(w * dx * dy)) / spread
        variance = float(np.sum(w * (dy - change * dx) ** 2)) / (n - 2) if n >= FEWEST else 0.0  # of the mean
        if n >= FEWEST:
            error = math.sqrt(variance / spread)
            sure = error * (1.96 + 2.4 / (n - 3))  # Student's t for 95 %, to within 2 %
        else:
            error = float(np.linalg.norm(w * dx * samples)) / spread  # as if their errors had nothing in common
            sure = 2 * error
        level_error = math.hypot(math.sqrt(variance * (1 + middle**2 / spread)), samples[-1] if known else 0.0)
        steady = n >= FEWEST and len(set(np.sign(np.diff(y)).tolist())) == 1
        return cls(change, error, sure, mean - change * middle, level_error, steady)

    def __sub__(self, other: Trend) -> Trend:
        """The trend of the difference between two independent curves."""
        return Trend(
            self.change - other.change,
            math.hypot(self.error, other.error),
            math.hypot(self.sure, other.sure),
            self.level - other.level,
            math.hypot(self.level_error, other.level_error),
        )

    @property
    def direction(self) -> Literal["falls", "rises", "flat", "unclear"]:
        """Where the curve goes, as far as that can be said."""
        believed = abs(self.change) > self.sure
        if not believed and self.sure > WIDE:
            believed = self.steady and abs(self.change) > WIDE  # points off the line may be a bend in place of noise
            if not believed:
                return "unclear"
        if not believed or abs(self.change) < SMALL:
            return "flat"
        return "falls" if self.change < 0 else "rises"


def _decide(v: Trend | None, t: Trend | None, schedule_done: float, lr_share: float) -> tuple[Kind, str]:
    """Returns the kind and what to try: the table of the lesson, line by line."""
    validation, train = (trend.direction if trend else "unclear" for trend in (v, t))
    gap = v - t if v and t else None
    remedy = "more text, more dropout or a smaller model"
    if validation == "falls":
        return "learning", "go on" if schedule_done < 1 else "a longer run would learn more"
    if validation == "rises" and train == "rises":
        return "diverging", "a lower learning rate"
    if validation == "rises" and (train != "unclear" or (gap and gap.direction == "rises")):
        return "overfitting", f"stop, or {remedy}"
    if validation != "flat" or train == "unclear" or not (v and gap):
        return "uncertain", "go on, and look more often or at more text"
    if train == "falls" and gap.direction == "rises" and gap.change > WIDE:
        return "overfitting", f"this is how it begins: {remedy}"
    if train == "falls":
        return "learning", "go on, and watch the gap"
    if lr_share < LOW_RATE and schedule_done < 0.5:
        return "uncertain", "the learning rate still warms up"
    if lr_share < LOW_RATE:
        return "finished", "learning has ended with the schedule; to go on: a longer one, more text or a larger model"
    if gap.level - 2 * gap.level_error > LARGE_GAP * v.level:
        return "overfitting", f"the text is learnt by heart: {remedy}"
    return "underfitting", f"the learning rate is at {lr_share:.0%} of its peak; try another, or a larger model"


def _evidence(v: Trend | None, t: Trend | None, steps: int) -> str:
    """Returns slopes with standard errors, in a round number of steps, and the gap."""
    round_steps = 10 ** (len(str(max(1, steps))) - 1)
    told, unit = [], f" per {round_steps:,} steps" if round_steps > 1 else " per step"
    for name, trend in (("validation", v), ("train", t)):
        if trend is None:
            told.append(f"{name} has too few points for a slope with an error")
            continue
        moves = trend.direction in ("falls", "rises")
        verb = f"{trend.direction} by" if moves else f"is {trend.direction},"
        change, error = trend.change * round_steps / steps, trend.error * round_steps / steps
        told.append(f"{name} {verb} {_measured(abs(change) if moves else change, error)}{unit}")
        unit = ""
    if v and t:
        gap = v - t
        told[-1] += f"; gap {_measured(gap.level, gap.level_error)}"
        told[-1] += {"rises": ", widening", "falls": ", narrowing"}.get(gap.direction, "")
    return ", ".join(told)


def _measured(value: float, error: float) -> str:
    """Returns a value with its error, to the error's first digit and four decimals at most: 0.031 ± 0.004."""
    decimals = min(4, max(0, -math.floor(math.log10(error)))) if error > 0 else 4
    return f"{round(value, decimals) + 0.0:.{decimals}f} ± {error:.{decimals}f}"  # + 0.0: never -0


def _recent(reports: Sequence[int], looks: Sequence[int]) -> tuple[int, int]:
    """Returns the first and last step of the run's last third, or of as much more as holds ENOUGH looks."""
    steps = [*reports, *looks] or [0]
    begin, last = min(steps), max(steps)
    third = min(step for step in steps if 3 * (last - step) <= last - begin)
    return min([third, *looks[-ENOUGH:]]), last


def _one_branch(points: Sequence[Point]) -> list[Point]:
    """Returns the points by ascending step: one takes the place of all before it that had come as far or further."""
    kept: list[Point] = []
    for point in points:
        while kept and kept[-1][0] >= point[0]:
            kept.pop()
        kept.append(point)
    return kept


def _is_loss(loss: float) -> bool:
    """Whether this can be a loss in nats: neither nan nor infinite, nor a number just short of that."""
    return abs(loss) < 1e9
