"""The trend of a loss curve: a line through its recent part, with the standard error of its slope.

The recent part of a curve is nearly a line y = a + b x, plus noise. Least squares finds the line, and the distance of
the points from it says how uncertain b is (w: tokens behind a point):

    b = sum w (x - mean x)(y - mean y) / sum w (x - mean x)^2                            r = y - a - b x
    standard error of b = sqrt( sum w r^2 / (n - 2) / sum w (x - mean x)^2 )

By hand, four evaluations, 100 steps apart: the deviations of x are -150, -50, 50, 150 and of y 0.15, 0.06, -0.06,
-0.15, so b is -51 / 50000, which is -0.102 per 100 steps, or -0.306 over the whole part. The r are 3, 9, 9 and 3
thousandths, so the error of b is sqrt(0.00018 / 2 / 50000), 0.004 per 100 steps:

>>> trend = Trend.of([(0, 2.00, None), (100, 1.91, None), (200, 1.79, None), (300, 1.70, None)], first=0, last=300)
>>> round(trend.change, 3), round(trend.error, 4), trend.direction
(-0.306, 0.0127, 'falls')

The validation text is a sample: another one of its size would score some hundredths of a nat higher or lower. But every
evaluation reads the same sample, so this error is common to all of them and cancels in differences: slopes are much
more certain than the loss itself. It counts in the level, and in the gap to the train loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from transformer.evaluation.statistics import students_t

TrainPoint = tuple[int, float, int]
"""Step, nats per token over the steps since the point before, tokens in them."""
ValidationPoint = tuple[int, float, float | None]
"""Step, nats per token, standard error of that or None."""

FEWEST = 4
"""Points for a line with an error: two for the line, two to lie off it."""
SMALL, WIDE = 0.01, 0.05
"""Nats over the recent part. A change below SMALL is flat; if the bound exceeds WIDE, nothing counts as flat."""


@dataclass(frozen=True)
class Trend:
    """A line through the recent part of a loss curve; all values in nats."""

    change: float
    """From the first to the last step of the part."""
    error: float
    """Standard error of `change`."""
    bound: float
    """95 % confidence bound: a larger change is significant."""
    level: float
    """The line at the last step."""
    level_error: float
    """Standard error of `level`, including that of the validation sample."""
    monotonic: bool = False
    """Whether every point lies on the same side of the one before."""

    @classmethod
    def of(
        cls, points: Sequence[ValidationPoint], first: int, last: int, tokens: Sequence[int] | None = None
    ) -> Self | None:
        """Fits a line from step `first` to `last`, with points weighted by their tokens; None for too few points."""
        n, samples = len(points), np.array([error or math.nan for _, _, error in points])
        known = n > 1 and all(0 < error < 1e9 for error in samples)
        if n < FEWEST and not known:
            return None
        x = np.array([(step - last) / (last - first) for step, _, _ in points])  # -1 to 0, whatever the number of steps
        y = np.array([loss for _, loss, _ in points])
        w = np.array(tokens or [1] * n) / sum(tokens or [1] * n)
        middle, mean = float(np.sum(w * x)), float(np.sum(w * y))
        dx, dy = x - middle, y - mean
        width = float(np.sum(w * dx**2))
        if width == 0:
            return None
        change = float(np.sum(w * dx * dy)) / width
        variance = float(np.sum(w * (dy - change * dx) ** 2)) / (n - 2) if n >= FEWEST else 0.0  # of the mean
        if n >= FEWEST:
            error = math.sqrt(variance / width)
            bound = error * students_t(0.025, n - 2)
        else:
            error = float(np.linalg.norm(w * dx * samples)) / width  # as if independent
            bound = 2 * error
        level_error = math.hypot(math.sqrt(variance * (1 + middle**2 / width)), samples[-1] if known else 0.0)
        monotonic = n >= FEWEST and len(set(np.sign(np.diff(y)).tolist())) == 1
        return cls(change, error, bound, mean - change * middle, level_error, monotonic)

    def __sub__(self, other: Trend) -> Trend:
        """The trend of the difference between two independent curves."""
        return Trend(
            self.change - other.change,
            math.hypot(self.error, other.error),
            math.hypot(self.bound, other.bound),
            self.level - other.level,
            math.hypot(self.level_error, other.level_error),
        )

    @property
    def direction(self) -> Literal["falls", "rises", "flat", "unclear"]:
        """Where the curve goes, or unclear if its noise hides that."""
        significant = abs(self.change) > self.bound
        if not significant and self.bound > WIDE:
            significant = self.monotonic and abs(self.change) > WIDE  # points lie off the line if the curve is curved
            if not significant:
                return "unclear"
        if not significant or abs(self.change) < SMALL:
            return "flat"
        return "falls" if self.change < 0 else "rises"
