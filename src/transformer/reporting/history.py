"""The history of a run, read from its metrics file: logged steps, evaluations, best score.

Plots (run_plots.py) and tables (cli/run_table.py) of one or several runs are made from histories. Each history has the
shortest name that distinguishes its folder from those of the other runs.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.training.events import EvalMetrics, InsideMetrics, StepMetrics

Against = Literal["tokens", "steps", "seconds"]
"""The quantity on the horizontal axis of a plot."""


@dataclass(frozen=True)
class History:
    """The logged metrics of one run, sorted by step. The lists are empty before the first log line."""

    name: str
    steps: list[StepMetrics]
    evaluations: list[EvalMetrics]
    """Each belongs to a step that is also in `steps`."""
    inside: list[InsideMetrics] = field(default_factory=list)
    """The measurements of --watch-inside, at steps of their own."""

    def progress(self, against: Against) -> dict[int, float]:
        """Returns the progress of the run at each logged step: tokens, steps, or seconds of training."""
        field = "step" if against == "steps" else against
        return {step.step: getattr(step, field) for step in self.steps}

    def losses(self) -> list[float]:
        """Returns the train loss (nats per token) of each log line; nan if all of its steps were skipped."""
        # Earlier versions logged a loss of 0 for them.
        return [math.nan if step.skipped and not step.loss else step.loss for step in self.steps]

    @property
    def best(self) -> EvalMetrics | None:
        """The evaluation with the lowest finite loss; None without one."""
        finite = [evaluation for evaluation in self.evaluations if math.isfinite(evaluation.loss)]
        return min(finite, key=lambda evaluation: evaluation.loss, default=None)

    @property
    def tokens_per_second(self) -> float:
        """The mean over all steps; 0 before the first log line."""
        last = self.steps[-1] if self.steps else None
        return last.tokens / last.seconds if last and last.seconds else 0.0


def read_histories(paths: Sequence[Path]) -> list[History]:
    """Returns the history in each metrics file; a repeated file is read once. Raises the errors of read_metrics."""
    files = list({path.resolve(): path for path in paths}.values())
    return [read_history(path, name) for path, name in zip(files, distinct_names(files), strict=True)]


def read_history(path: Path, name: str) -> History:
    events = read_metrics(path)
    steps = {event.step: event for event in events if isinstance(event, StepMetrics)}
    evaluations = {event.step: event for event in events if isinstance(event, EvalMetrics) and event.step in steps}
    inside = {event.step: event for event in events if isinstance(event, InsideMetrics)}
    return History(name, *([kind[step] for step in sorted(kind)] for kind in (steps, evaluations, inside)))  # type: ignore[arg-type]


def distinct_names(files: Sequence[Path]) -> list[str]:
    """Returns a distinct name for each file: its folder, preceded by as many parent folders as necessary.

    >>> distinct_names([Path("a/tiny/metrics.jsonl"), Path("b/tiny/metrics.jsonl"), Path("b/demo/metrics.jsonl")])
    ['a/tiny', 'b/tiny', 'demo']
    """
    paths = []
    for file in files:
        folder = file.resolve().parent
        suffix = "" if file.name == METRICS_FILE else f"/{file.name}"
        paths.append((*folder.parts[:-1], folder.name + suffix))
    names = []
    for path in paths:
        others = [other for other in paths if other != path]
        depths = range(1, len(path) + 1)
        depth = next((d for d in depths if all(other[-d:] != path[-d:] for other in others)), len(path))
        names.append("/".join(path[-depth:]))
    return names


def moving_median(values: Sequence[float], half_window: int) -> list[float]:
    """Returns the centred moving median over `half_window` values on each side.

    A mean would lie above the curve where a loss falls steeply; the median of a falling curve is the curve. Near the
    start, both sides are shortened to the number of values before the position. Values that are not finite are left out
    and give nan at their own position.

    >>> moving_median([8.0, 4.0, 2.0, 1.0, 3.0], 1)
    [8.0, 4.0, 2.0, 2.0, 2.0]
    """
    window: list[float] = []  # sorted
    low = high = 0
    medians = []
    for position, value in enumerate(values):
        reach = min(half_window, position)
        for added in values[high : position + reach + 1]:
            if math.isfinite(added):
                insort(window, added)
        for removed in values[low : position - reach]:
            if math.isfinite(removed):
                window.pop(bisect_left(window, removed))
        low, high = position - reach, position + reach + 1
        medians.append(median(window) if math.isfinite(value) else math.nan)
    return medians
