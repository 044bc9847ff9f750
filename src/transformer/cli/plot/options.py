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
    inside: bool = False
    """Draw when the habits of attention heads appear in a run that was trained with --watch-inside, against steps."""
    out: Path | None = None
    """The picture, .png, .svg or .pdf. None: loss_curve.png and .svg (with --inside: inside.png and .svg) in the
    run's folder; for several runs comparison.png and .svg in their common folder, or in runs/ here."""


def read_options(arguments: Sequence[str]) -> PlotOptions:
    return parse(PlotOptions(), arguments, "plot", check)


def check(options: PlotOptions) -> None:
    """Raises ValueError for a picture without a format, and for a picture of the inside of several runs."""
    if options.inside and len(options.runs) > 1:
        raise ValueError(f"--inside draws one run, and there are {len(options.runs)}: name one of them")
    if options.inside and options.against not in (PlotOptions.against, "steps"):
        raise ValueError(f"--inside is drawn against steps: leave out --against {options.against}")
    if options.out and not options.out.suffix:
        raise ValueError(f"--out {options.out} has no picture format: end it in .png, .svg or .pdf")
