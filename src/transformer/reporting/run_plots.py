"""Pictures of training runs, drawn with matplotlib from their metrics files.

The loss is on top, train and validation; learning rate, gradient norm and speed are below it, on the same axis.
A train loss with many log lines is drawn twice: thin as it was logged, and bold as the mean over the nearest 5% of its
lines. What is not finite is a gap; a loss or a gradient norm that is a gap, and steps that were skipped, get a cross.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from transformer.reporting.history import Against, History, read_histories, smoothed

SMOOTHED_FROM = 20
"""Log lines from which on a train loss is smoothed."""
NAMED_ONCE_FROM = 4
"""Runs from which on each has one line in the legend, beside the picture."""
Color = str | tuple[float, float, float, float]
UNITS = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0}


def save_loss_curve(metrics: Sequence[Path], *pictures: Path, against: Against = "tokens") -> Path:
    """Draws one or more runs, and writes the same drawing as each of the pictures; returns the first.

    A picture's kind follows from its ending (.png, .svg, .pdf). Raises FileNotFoundError for a missing metrics file,
    and ValueError where none holds a step.
    """
    runs = [run for run in read_histories(metrics) if run.steps]
    if not runs:
        raise ValueError(f"no training step in {', '.join(map(str, metrics))}: nothing to draw")
    save(draw(runs, against), *pictures)
    return pictures[0]


def save(figure: Figure, *pictures: Path) -> None:
    """Writes a drawing as each of the pictures, whose kinds follow from their endings."""
    if arrangement := figure.get_layout_engine():
        arrangement.execute(figure)  # once for all pictures
        figure.set_layout_engine("none")
    for picture in pictures:
        picture.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(picture, dpi=150)


def draw(runs: Sequence[History], against: Against = "tokens") -> Figure:
    """Returns the drawing of runs that have a step each."""
    figure = Figure(figsize=(10, 9), layout="constrained")
    panels = figure.subplots(4, 1, sharex=True, height_ratios=[4, 1, 1, 1])
    loss, rate, norm, speed = panels
    unit = time_unit(runs) if against == "seconds" else against
    for run, color in zip(runs, colors(len(runs)), strict=True):
        at = {step: value / UNITS.get(unit, 1.0) for step, value in run.at(against).items()}
        draw_loss(loss, run, at, color, named_once=len(runs) >= NAMED_ONCE_FROM)
        draw_steps(rate, at, [step.learning_rate for step in run.steps], color)
        draw_norm(norm, run, at, color)
        draw_steps(speed, at, [step.tokens_per_second for step in run.steps], color)
    speed.set_xlabel({"tokens": "tokens seen", "steps": "steps"}.get(unit, f"{unit} of training"))
    if against != "seconds":
        speed.xaxis.set_major_formatter(EngFormatter(sep=""))
    speed.yaxis.set_major_formatter(EngFormatter(sep=""))
    rate.yaxis.set_major_formatter("{x:g}")
    rate.set_ylim(bottom=0)
    scale_norm(norm, runs)
    speed.set_ylim(bottom=0)
    for axes, name in zip(panels, ("loss (nats a token)", "learning rate", "gradient norm", "tokens/s"), strict=True):
        axes.set_ylabel(name)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    notes = [*cut_off(loss, runs), *what_lines_mean(runs)]
    loss.set_title(textwrap.fill("; ".join(notes), 110), fontsize="small", loc="left", color="dimgray")
    label_with_perplexity(loss)
    if len(runs) < NAMED_ONCE_FROM:
        loss.legend(frameon=False)
    else:
        columns = 1 + len(runs) // 45
        figure.legend(loc="outside right upper", frameon=False, fontsize="small", ncols=columns)
        figure.set_figwidth(9 + columns * (2.5 + 0.07 * max(len(run.name) for run in runs)))
    return figure


def draw_loss(loss: Axes, run: History, at: dict[int, float], color: Color, named_once: bool) -> None:
    """Draws a run's train loss, smoothed where it has many lines, and its validation loss as dots on a dashed line."""
    values, places = run.losses(), list(at.values())
    looks = [look for look in run.looks if math.isfinite(look.loss)]
    score = f"{looks[-1].bits_per_byte:.3f} bits per byte" if looks else "no validation yet"
    name = as_label(run.name)
    mark(loss, [place for place, value in zip(places, values, strict=True) if not math.isfinite(value)], color)
    if is_smoothed(run):
        loss.plot(places, values, color=color, alpha=0.3, linewidth=0.7)
        values = smoothed(values, half_window(run))
    draw_steps(loss, at, values, color, f"{name}: {score if named_once else 'train'}", linewidth=1.6)
    if looks:
        style: dict[str, Any] = {"marker": "o", "markersize": 4, "linestyle": "--", "linewidth": 1}
        label = None if named_once else f"{name}: validation, {score}"
        loss.plot([at[look.step] for look in looks], [look.loss for look in looks], color=color, label=label, **style)


def draw_steps(
    axes: Axes,
    at: dict[int, float],
    values: Sequence[float],
    color: Color,
    label: str | None = None,
    linewidth: float = 1,
) -> None:
    """Draws a line through the values at all steps; one or two alone are dots, since a line would not show."""
    few = sum(map(math.isfinite, values)) < 3
    axes.plot(list(at.values()), values, color=color, linewidth=linewidth, label=label, marker="." if few else None)


def draw_norm(norm: Axes, run: History, at: dict[int, float], color: Color) -> None:
    """Draws the gradient's norm, with a cross where steps were skipped."""
    draw_steps(norm, at, [step.grad_norm for step in run.steps], color)
    mark(norm, [at[step.step] for step in run.steps if step.skipped or not math.isfinite(step.grad_norm)], color)


def scale_norm(norm: Axes, runs: Sequence[History]) -> None:
    """Lets the scale of the gradient's norm go by factors where it spans more than a factor of 10."""
    norms = [step.grad_norm for run in runs for step in run.steps if 0 < step.grad_norm < math.inf]
    if not norms or max(norms) <= 10 * min(norms):
        norm.set_ylim(bottom=0)
        return
    norm.set_yscale("log", nonpositive="mask")
    norm.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    norm.yaxis.set_major_formatter("{x:g}")
    norm.yaxis.set_minor_locator(NullLocator())


def mark(axes: Axes, places: Sequence[float], color: Color) -> None:
    """Puts a cross at the panel's lower edge for each of the places."""
    if places:
        axes.plot(places, [0.06] * len(places), "x", color=color, transform=axes.get_xaxis_transform(), markersize=5)


def cut_off(loss: Axes, runs: Sequence[History]) -> list[str]:
    """Keeps one run that rises far above where the runs began from flattening all; returns what to say about it."""
    finite = [[value for value in run.losses() if math.isfinite(value)] for run in runs]
    ceiling = 1.25 * max((values[0] for values in finite if values), default=math.inf)
    looks = [look.loss for run in runs for look in run.looks if math.isfinite(look.loss)]
    shown = list(chain(looks, *finite))
    if max(shown, default=0.0) <= ceiling:
        return []
    low = min(shown)
    loss.set_ylim(low - 0.05 * (ceiling - low), ceiling)
    return [f"losses above {ceiling:.3g} lie outside"]


def what_lines_mean(runs: Sequence[History]) -> list[str]:
    """Returns what a reader must know about the lines of this picture."""
    notes = []
    if any(map(is_smoothed, runs)):
        notes.append("train loss thin as logged, bold as the mean over the nearest 5% of a run's log lines")
    if any(run.looks for run in runs):
        notes.append("validation dashed" + ", its last bits per byte named" * (len(runs) >= NAMED_ONCE_FROM))
    if any(step.skipped or not math.isfinite(step.loss) for run in runs for step in run.steps):
        notes.append("x: skipped or not finite")
    return notes


def is_smoothed(run: History) -> bool:
    return len(run.steps) >= SMOOTHED_FROM


def half_window(run: History) -> int:
    """Log lines on each side whose mean is drawn: a fortieth of all, so that both sides are about 5%."""
    return max(1, round(len(run.steps) / 40))


def time_unit(runs: Sequence[History]) -> str:
    """Returns the largest unit of which the longest run takes at least two."""
    longest = max(run.steps[-1].seconds for run in runs)
    return [unit for unit, seconds in UNITS.items() if seconds == 1 or longest >= 2 * seconds][-1]


def colors(count: int) -> list[Color]:
    """Returns a colour for each run: matplotlib's ten as far as they last, else as many steps through a spectrum."""
    if count <= 10:
        return [f"C{number}" for number in range(count)]
    return [colormaps["turbo"](0.05 + 0.9 * number / (count - 1)) for number in range(count)]


def as_label(name: str) -> str:
    """Returns a run's name as matplotlib shows it: it reads $ as mathematics, and leaves out what begins with _."""
    name = name.replace("$", r"\$")
    return f"./{name}" if name.startswith("_") else name


def label_with_perplexity(loss: Axes) -> None:
    """Puts an axis on the right that reads the same heights as perplexity, at round numbers."""
    low, high = loss.get_ylim()
    round_numbers = [digit * 10**power for power in range(9) for digit in (1, 2, 5)]
    shown = [number for number in round_numbers if low <= math.log(number) <= high]
    right = loss.secondary_yaxis("right")
    right.set_yticks([math.log(number) for number in shown], [f"{number:,}" for number in shown])
    right.set_ylabel("perplexity")
