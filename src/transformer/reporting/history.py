"""What a run's metrics file tells about it: its curves, its best numbers, and a name that no other run beside it has.

Pictures (plots.py) and tables (commands/) of several runs are made from this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.training.events import EvalMetrics, StepMetrics

Against = Literal["tokens", "steps", "seconds"]


@dataclass(frozen=True)
class History:
    """A run as it was logged, in the order of its steps; both lists are empty before its first log line."""

    name: str
    steps: list[StepMetrics]
    looks: list[EvalMetrics]
    """The evaluations. Each falls on a step that is logged too."""

    def at(self, against: Against) -> dict[int, float]:
        """Returns for every logged step how far the run was then: in tokens, steps, or seconds of training."""
        field = "step" if against == "steps" else against
        return {step.step: getattr(step, field) for step in self.steps}

    def losses(self) -> list[float]:
        """Returns the train losses (nats a token), nan where no step since the line before had a finite gradient."""
        return [math.nan if step.skipped and not step.loss else step.loss for step in self.steps]

    @property
    def best(self) -> EvalMetrics | None:
        """The evaluation with the lowest loss; None before there is a finite one."""
        return min((look for look in self.looks if math.isfinite(look.loss)), key=lambda look: look.loss, default=None)

    @property
    def tokens_per_second(self) -> float:
        """Over all steps; 0 where no time has passed."""
        last = self.steps[-1] if self.steps else None
        return last.tokens / last.seconds if last and last.seconds else 0.0


def read_histories(paths: Sequence[Path]) -> list[History]:
    """Returns the runs of these metrics files, each once. Raises what read_metrics raises."""
    files = list({path.resolve(): path for path in paths}.values())
    return [read_history(path, name) for path, name in zip(files, distinct_names(files), strict=True)]


def read_history(path: Path, name: str) -> History:
    events = read_metrics(path)
    steps = {event.step: event for event in events if isinstance(event, StepMetrics)}
    looks = {event.step: event for event in events if isinstance(event, EvalMetrics) and event.step in steps}
    return History(name, [steps[step] for step in sorted(steps)], [looks[step] for step in sorted(looks)])


def distinct_names(files: Sequence[Path]) -> list[str]:
    """Returns for each file as few of the last folders on its way as tell it from the others.

    >>> distinct_names([Path("a/tiny/metrics.jsonl"), Path("b/tiny/metrics.jsonl"), Path("b/demo/metrics.jsonl")])
    ['a/tiny', 'b/tiny', 'demo']
    """
    ways = []
    for file in files:
        folder = file.resolve().parent
        own = "" if file.name == METRICS_FILE else f"/{file.name}"
        ways.append((*folder.parts[:-1], folder.name + own))
    names = []
    for way in ways:
        others = [other for other in ways if other != way]
        depths = range(1, len(way) + 1)
        depth = next((d for d in depths if all(other[-d:] != way[-d:] for other in others)), len(way))
        names.append("/".join(way[-depth:]))
    return names


def smoothed(values: Sequence[float], half: int) -> list[float]:
    """Returns at each place the mean of the `half` values before it, itself, and the `half` after.

    At the beginning, which is steep, both sides are as short as what lies before. What is not finite is left out of the
    means around it, and stays nan in its own place.

    >>> smoothed([4.0, 1.0, 4.0, 1.0, 3.0], 1)
    [4.0, 3.0, 2.0, 2.6666666666666665, 2.0]
    """
    finite = [math.isfinite(value) for value in values]
    sums = list(accumulate((value if good else 0.0 for value, good in zip(values, finite, strict=True)), initial=0.0))
    counts = list(accumulate(finite, initial=0))
    means = []
    for place, good in enumerate(finite):
        reach = min(half, place)
        low, high = place - reach, min(place + reach + 1, len(values))
        means.append((sums[high] - sums[low]) / (counts[high] - counts[low]) if good else math.nan)
    return means
