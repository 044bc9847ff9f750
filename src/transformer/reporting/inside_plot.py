"""When the habits of attention heads appear in a run, drawn with matplotlib from the measurements of --watch-inside.

The top panel shows the losses: of training, and on repeated random tokens, first and second half. The bottom panel
shows, for each habit, the score of the head in which it is strongest at that step, and dashed in the same colour the
score of a head that attends evenly to all tokens: where both lines meet, there is no such habit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transformer.reporting.figures import colors, save_figure
from transformer.reporting.history import History, moving_median, read_history
from transformer.reporting.run_plots import half_window
from transformer.training.events import InsideMetrics


def save_inside(metrics: Sequence[Path], *files: Path) -> Path:
    """Plots the inside of the run in the one metrics file and writes the figure to each file; returns the first file.

    Raises FileNotFoundError for a missing metrics file, and ValueError if it contains no measurement.
    """
    (path,) = metrics
    run = read_history(path, path.parent.name)
    if not run.inside:
        raise ValueError(f"{path.parent} was trained without --watch-inside: train it again with this flag")
    save_figure(draw_inside(run), *files)
    return files[0]


def draw_inside(run: History) -> Figure:
    """Returns the figure of a run with at least one measurement."""
    figure = Figure(figsize=(10, 8), layout="constrained")
    loss, habits = figure.subplots(2, 1, sharex=True)
    draw_losses(loss, run)
    draw_habits(habits, run.inside)
    for axes in (loss, habits):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small")
    loss.set_ylabel("loss (nats per token)")
    habits.set_ylabel("attention paid to the keys of the habit")
    habits.set_ylim(0, 1)
    habits.set_xlabel("steps")
    note = "repeated random tokens: the second half can be predicted from the context alone"
    loss.set_title(note, fontsize="small", loc="left", color="dimgray")
    return figure


def draw_losses(axes: Axes, run: History) -> None:
    """Draws the train loss and the losses of both halves of random tokens."""
    if run.steps:
        smooth = moving_median(run.losses(), half_window(run))
        axes.plot([step.step for step in run.steps], smooth, color="gray", linewidth=1, label="train")
    steps = [found.step for found in run.inside]
    for values, label, color in (
        ([found.first_loss for found in run.inside], "random tokens, first half", "C0"),
        ([found.second_loss for found in run.inside], "random tokens, second half", "C3"),
    ):
        axes.plot(steps, values, color=color, marker=".", label=label)


def draw_habits(axes: Axes, inside: list[InsideMetrics]) -> None:
    """Draws the strongest head's score of every habit, and the even head's."""
    steps = [found.step for found in inside]
    for name, color in zip(inside[-1].scores, colors(len(inside[-1].scores)), strict=True):
        best = [found.strongest(name) for found in inside]
        score, layer, head = best[-1]
        label = f"{name}: {score:.2f} in head {layer}.{head} at the end (even {inside[-1].even[name]:.2f})"
        axes.plot(steps, [score for score, _, _ in best], color=color, marker=".", label=label)
        axes.plot(steps, [found.even[name] for found in inside], color=color, linestyle="--", linewidth=0.8)
