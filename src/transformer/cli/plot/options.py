"""The options of the plot command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformer.cli.options import POSITIONAL, parse
from transformer.reporting.history import Against


@dataclass(frozen=True)
class PlotOptions:
    """Draw training and validation loss, learning rate, gradient norm and tokens per second of one or more runs."""

    runs: tuple[Path, ...] = field(default=(), metadata=POSITIONAL)
    """Runs' folders, folders of such folders, or metrics files. None: the latest run here."""
    against: Against = "tokens"
    """The horizontal axis: tokens, steps, or seconds of training."""
    out: Path | None = None
    """The picture, .png, .svg or .pdf. None: loss_curve.png and .svg in the run's folder; for several runs
    comparison.png and .svg in their common folder, or in runs/ here."""


def read_options(arguments: Sequence[str]) -> PlotOptions:
    return parse(PlotOptions(), arguments, "plot", check)


def check(options: PlotOptions) -> None:
    """Raises ValueError for a picture without a format."""
    if options.out and not options.out.suffix:
        raise ValueError(f"--out {options.out} has no picture format: end it in .png, .svg or .pdf")
