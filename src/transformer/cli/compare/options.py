"""The options of the compare command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformer.cli.evaluate.options import MeasureOptions
from transformer.cli.options import POSITIONAL, parse
from transformer.config import Kernels

KINDS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class CompareOptions:
    """Rank checkpoints: those of one dataset on its held-out documents, or all of them on one text."""

    checkpoints: tuple[Path, ...] = field(default=(), metadata=POSITIONAL)
    """Checkpoints, runs' folders, or folders of such folders; "best" or FOLDER/best: the lowest validation loss.
    None: all runs in folders checkpoints* here. Also hf:OWNER/NAME, a folder with config.json or a .gguf file."""
    directory: Path | None = None
    """Another folder."""
    measure: MeasureOptions = field(default_factory=MeasureOptions)
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    kernels: Kernels = "auto"
    """auto: faster equivalents of core functions, chosen by processor. plain: the code of the core files. A kind of
    processor: the choices for that kind."""
    out: Path | None = None
    """The picture, .png, .svg or .pdf. None: compare.png and compare.svg in runs/compare."""
    json: bool = False
    """Print all results as one JSON object."""


def read_options(arguments: Sequence[str]) -> CompareOptions:
    return parse(CompareOptions(), arguments, "compare", check)


def check(options: CompareOptions) -> None:
    """Raises ValueError for impossible options, before anything is read."""
    options.measure.check()
    if options.out and options.out.suffix not in KINDS:
        raise ValueError(f"--out {options.out} has no picture format: end it in {', '.join(KINDS)}")
