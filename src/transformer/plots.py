"""Pictures of training runs, drawn with matplotlib from their metrics files.

matplotlib takes half a second to import: it is imported by who draws, not by every command that may.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from transformer.runtime.metrics import EvalMetrics, StepMetrics, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def save_loss_curve(metrics: Sequence[Path], picture: Path) -> Path:
    """Draws the loss against tokens seen, and the learning rate below, for one or more runs; returns `picture`.

    The picture's kind follows from its ending (.png, .svg, .pdf). Raises FileNotFoundError for a missing metrics file,
    and ValueError where none holds a step.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(9, 6), layout="constrained")
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    drawn = [draw_run(path, loss, rate, f"C{number}") for number, path in enumerate(metrics)]
    if not any(drawn):
        raise ValueError(f"no training step in {', '.join(map(str, metrics))}: nothing to draw")
    loss.set_ylabel("loss (nats a token)")
    label_with_perplexity(loss)
    loss.legend(frameon=False)
    rate.set_ylabel("learning rate")
    rate.set_xlabel("tokens seen")
    rate.xaxis.set_major_formatter(EngFormatter(sep=""))
    for axes in (loss, rate):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=150)
    return picture


def draw_run(path: Path, loss: Axes, rate: Axes, color: str) -> bool:
    """Draws one run's train and validation loss and its learning rate; returns whether there was a step to draw."""
    events = read_metrics(path)
    steps = [event for event in events if isinstance(event, StepMetrics)]
    if not steps:
        return False
    name = path.resolve().parent.name
    tokens_at = {event.step: event.tokens for event in steps}
    tokens = [event.tokens for event in steps]
    loss.plot(tokens, [event.loss for event in steps], color=color, alpha=0.6, linewidth=1, label=f"{name}: train")
    looks = [event for event in events if isinstance(event, EvalMetrics) and event.step in tokens_at]
    if looks:
        seen = [tokens_at[event.step] for event in looks]
        label = f"{name}: validation, {looks[-1].bits_per_byte:.3f} bits per byte"
        loss.plot(seen, [event.loss for event in looks], color=color, marker="o", markersize=4, label=label)
    rate.plot(tokens, [event.learning_rate for event in steps], color=color, linewidth=1)
    return True


def label_with_perplexity(loss: Axes) -> None:
    """Puts an axis on the right that reads the same heights as perplexity, at round numbers."""
    low, high = loss.get_ylim()
    round_numbers = [digit * 10**power for power in range(9) for digit in (1, 2, 5)]
    shown = [number for number in round_numbers if low <= math.log(number) <= high]
    right = loss.secondary_yaxis("right")
    right.set_yticks([math.log(number) for number in shown], [f"{number:,}" for number in shown])
    right.set_ylabel("perplexity")
