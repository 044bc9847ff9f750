"""Plots of training runs, drawn with matplotlib from their metrics files.

The top panel shows train and validation loss; below it, on the same horizontal axis, are learning rate, gradient norm
and tokens per second. A train loss with many log lines is drawn twice: a thin line with the logged values, and a thick
line with their moving median over 5% of the log lines. Values that are not finite leave a gap in the line. A cross at
the bottom of the panel marks such losses and gradient norms, and skipped steps.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from transformer.reporting.figures import Color, colors, legend_label, save_figure
from transformer.reporting.history import Against, History, moving_median, read_histories

SMOOTHED_FROM = 20
"""Minimum number of log lines for a moving median of the train loss."""
COMPACT_FROM = 4
"""From this number of runs on, each run has one legend entry instead of two, and the legend is below the panels."""
UNITS = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0}
PANELS = ("loss (nats per token)", "learning rate", "gradient norm", "tokens/s")


def save_loss_curve(metrics: Sequence[Path], *files: Path, against: Against = "tokens") -> Path:
    """Plots one or more runs and writes the figure to each file (.png, .svg, .pdf); returns the first file.

    Raises FileNotFoundError for a missing metrics file, and ValueError if no metrics file contains a step.
    """
    runs = [run for run in read_histories(metrics) if run.steps]
    if not runs:
        raise ValueError(f"no training step in {', '.join(map(str, metrics))}: nothing to draw")
    save_figure(draw(runs, against), *files)
    return files[0]


def draw(runs: Sequence[History], against: Against = "tokens") -> Figure:
    """Returns the figure for runs of at least one step each."""
    figure = Figure(figsize=(10, 9), layout="constrained")
    panels = figure.subplots(4, 1, sharex=True, height_ratios=[4, 1, 1, 1])
    loss, rate, norm, speed = panels
    unit = time_unit(runs) if against == "seconds" else against
    compact = len(runs) >= COMPACT_FROM
    for run, color in zip(runs, colors(len(runs)), strict=True):
        x = {step: value / UNITS.get(unit, 1.0) for step, value in run.progress(against).items()}
        draw_loss(loss, run, x, color, compact=compact)
        draw_steps(rate, x, [step.learning_rate for step in run.steps], color)
        draw_norm(norm, run, x, color)
        draw_steps(speed, x, [step.tokens_per_second for step in run.steps], color)
    format_axes(panels, unit)
    scale_norm(norm, runs)
    notes = [*limit_loss_axis(loss, runs), *legend_notes(runs)]
    loss.set_title(textwrap.fill("; ".join(notes), 110), fontsize="small", loc="left", color="dimgray")
    add_perplexity_axis(loss)
    if compact:
        longest = max(len(text) for text in loss.get_legend_handles_labels()[1])
        columns = max(1, min(len(runs), int(10 / (0.6 + 0.075 * longest))))  # 0.075 inches per character
        figure.legend(loc="outside lower center", frameon=False, fontsize="small", ncols=columns)
        figure.set_figheight(9 + 0.2 * math.ceil(len(runs) / columns))
    else:
        loss.legend(frameon=False)
    return figure


def format_axes(panels: Sequence[Axes], unit: str) -> None:
    """Sets labels, number formats and lower limits of all panels."""
    _, rate, _, speed = panels
    for axes, name in zip(panels, PANELS, strict=True):
        axes.set_ylabel(name)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    speed.set_xlabel({"tokens": "tokens seen", "steps": "steps"}.get(unit, f"{unit} of training"))
    if unit not in UNITS:
        speed.xaxis.set_major_formatter(EngFormatter(sep=""))
    speed.yaxis.set_major_formatter(EngFormatter(sep=""))
    speed.set_ylim(bottom=0)
    rate.yaxis.set_major_formatter("{x:g}")
    rate.set_ylim(bottom=0)


def draw_loss(loss: Axes, run: History, x: dict[int, float], color: Color, compact: bool) -> None:
    """Draws the train loss of a run, and its validation loss as dots on a dashed line."""
    values = run.losses()
    evaluations = [evaluation for evaluation in run.evaluations if math.isfinite(evaluation.loss)]
    score = f"{evaluations[-1].bits_per_byte:.3f} bits per byte" if evaluations else "no validation yet"
    name = legend_label(run.name)
    draw_crosses(loss, [at for at, value in zip(x.values(), values, strict=True) if not math.isfinite(value)], color)
    if is_smoothed(run):
        loss.plot(list(x.values()), values, color=color, alpha=0.3, linewidth=0.7)
        values = moving_median(values, half_window(run))
    draw_steps(loss, x, values, color, f"{name}: {score if compact else 'train'}", linewidth=1.6)
    if evaluations:
        style: dict[str, Any] = {"marker": "o", "markersize": 4, "linestyle": "--", "linewidth": 1}
        label = None if compact else f"{name}: validation, {score}"
        steps = [x[evaluation.step] for evaluation in evaluations]
        loss.plot(steps, [evaluation.loss for evaluation in evaluations], color=color, label=label, **style)


def draw_steps(
    axes: Axes,
    x: dict[int, float],
    values: Sequence[float],
    color: Color,
    label: str | None = None,
    linewidth: float = 1,
) -> None:
    """Draws a line through the values of all steps. One or two values are drawn as dots: a line would not show."""
    marker = "." if sum(map(math.isfinite, values)) < 3 else None
    axes.plot(list(x.values()), values, color=color, linewidth=linewidth, label=label, marker=marker)


def draw_norm(norm: Axes, run: History, x: dict[int, float], color: Color) -> None:
    """Draws the gradient norm, with crosses at skipped steps."""
    draw_steps(norm, x, [step.grad_norm for step in run.steps], color)
    skipped = [x[step.step] for step in run.steps if step.skipped or not math.isfinite(step.grad_norm)]
    draw_crosses(norm, skipped, color)


def draw_crosses(axes: Axes, x: Sequence[float], color: Color) -> None:
    """Draws a cross near the bottom of the panel at each x."""
    if x:
        axes.plot(x, [0.06] * len(x), "x", color=color, transform=axes.get_xaxis_transform(), markersize=5)


def scale_norm(norm: Axes, runs: Sequence[History]) -> None:
    """Makes the axis of the gradient norm logarithmic if the norms span more than a factor of 10."""
    norms = [step.grad_norm for run in runs for step in run.steps if 0 < step.grad_norm < math.inf]
    if not norms or max(norms) <= 10 * min(norms):
        norm.set_ylim(bottom=0)
        return
    norm.set_yscale("log", nonpositive="mask")
    norm.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    norm.yaxis.set_major_formatter("{x:g}")
    norm.yaxis.set_minor_locator(NullLocator())


def limit_loss_axis(loss: Axes, runs: Sequence[History]) -> list[str]:
    """Cuts the loss axis at 1.25 times the largest first loss, so that a diverged run does not flatten the others.

    Returns a note for the title if the limit hides any value.
    """
    finite = [[value for value in run.losses() if math.isfinite(value)] for run in runs]
    ceiling = 1.25 * max((values[0] for values in finite if values), default=math.inf)
    validation = [evaluation.loss for run in runs for evaluation in run.evaluations if math.isfinite(evaluation.loss)]
    values = list(chain(validation, *finite))
    if max(values, default=0.0) <= ceiling:
        return []
    low = min(values)
    loss.set_ylim(low - 0.05 * (ceiling - low), ceiling)
    return [f"losses above {ceiling:.3g} are not shown"]


def legend_notes(runs: Sequence[History]) -> list[str]:
    """Returns the notes that explain the line styles used in this figure."""
    notes = []
    if any(map(is_smoothed, runs)):
        notes.append("train loss: thin as logged, thick the median of the nearest 5% of a run's log lines")
    if any(run.evaluations for run in runs):
        in_legend = ", legend: its last bits per byte" if len(runs) >= COMPACT_FROM else ""
        notes.append(f"validation loss: dashed{in_legend}")
    if any(step.skipped or not math.isfinite(step.loss) for run in runs for step in run.steps):
        notes.append("x: skipped or not finite")
    return notes


def is_smoothed(run: History) -> bool:
    return len(run.steps) >= SMOOTHED_FROM


def half_window(run: History) -> int:
    """Returns the log lines on each side of the median: 2.5% of all, 5% in total."""
    return max(1, round(len(run.steps) / 40))


def time_unit(runs: Sequence[History]) -> str:
    """Returns the largest unit in which the longest run lasts at least 2."""
    longest = max(run.steps[-1].seconds for run in runs)
    return [unit for unit, seconds in UNITS.items() if seconds == 1 or longest >= 2 * seconds][-1]


def add_perplexity_axis(loss: Axes) -> None:
    """Adds an axis on the right with ticks at round perplexities."""
    low, high = loss.get_ylim()
    round_numbers = [digit * 10**power for power in range(9) for digit in (1, 2, 5)]
    shown = [number for number in round_numbers if low <= math.log(number) <= high]
    right = loss.secondary_yaxis("right")
    right.set_yticks([math.log(number) for number in shown], [f"{number:,}" for number in shown])
    right.set_ylabel("perplexity")
