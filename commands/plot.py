"""Draws the loss curves of one or more runs into one picture.

uv run python main.py plot                                         the run last written here
uv run python main.py plot checkpoints_demo checkpoints_quick --out curves.svg
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from cli import parse, run
from transformer.plots import save_loss_curve
from transformer.runtime.metrics import METRICS_FILE


@dataclass(frozen=True)
class PlotOptions:
    """Loss against tokens, train and validation, and the learning rate."""

    runs: Positional[tuple[Path, ...]] = ()
    """Folders of runs, or metrics files; none: the run last written here."""
    out: Path | None = None
    """The picture: .png, .svg or .pdf; None: loss_curve.png in the first run's folder."""


def main(arguments: Sequence[str]) -> None:
    options = parse(PlotOptions, arguments, "plot")
    files = [path / METRICS_FILE if path.is_dir() else path for path in options.runs] or [newest_run()]
    for file in files:
        if not file.is_file():
            raise ValueError(f"there is no metrics file {file}: name the folder of a run, such as checkpoints_demo")
    print(save_loss_curve(files, options.out or files[0].parent / "loss_curve.png"))


def newest_run() -> Path:
    """Returns the metrics file last written in a folder checkpoints*. Raises ValueError where there is none."""
    files = sorted(Path().glob(f"checkpoints*/{METRICS_FILE}"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise ValueError("no run found here: train a model first, with `make demo`")
    return files[-1]


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
