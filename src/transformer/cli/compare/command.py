"""The compare command; commands/compare.py documents it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tyro.conf import Positional

from transformer.cli.compare.score import Scoring, Show
from transformer.cli.compare.table import conclusion, ranking_table
from transformer.cli.console import console
from transformer.cli.download_progress import notifier
from transformer.cli.evaluate.options import MeasureOptions
from transformer.cli.json_output import print_json
from transformer.cli.options import parse
from transformer.data.contracts import silent
from transformer.evaluation.ranking import Ranking
from transformer.kernels import Kernels
from transformer.reporting.ranking_plot import save_ranking
from transformer.training import checkpoint
from transformer.training.checkpoint import CheckpointError

PICTURES = (Path("runs/compare/compare.png"), Path("runs/compare/compare.svg"))
KINDS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class CompareOptions:
    """Rank checkpoints: those of one dataset on its held-out documents, or all of them on one text."""

    paths: Positional[tuple[Path, ...]] = ()
    """Checkpoints, runs' folders, or folders of such folders; "best" or FOLDER/best: the lowest validation loss.
    None: all runs in folders checkpoints* here."""
    directory: Path | None = None
    """Another folder."""
    measure: MeasureOptions = field(default_factory=MeasureOptions)
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    kernels: Kernels = "auto"
    """auto: faster equivalents of core functions. plain: the code of the core files."""
    out: Path | None = None
    """The picture, .png, .svg or .pdf. None: compare.png and compare.svg in runs/compare."""
    json: bool = False
    """Print all results as one JSON object."""


def main(arguments: Sequence[str]) -> None:
    options = parse(CompareOptions, arguments, "compare", check=check)
    named = [*options.paths, *([options.directory] if options.directory else [])]
    paths = [path for name in named for path in found_at(name)] if named else found_here()
    out = console()
    with progress_on(out, quiet=options.json) as show:
        notify = silent if options.json else notifier(out, lambda message: None)
        work = Scoring(options.measure, options.device, options.kernels, show, notify)
        rankings = work.rankings({path.resolve(): path for path in paths}.values())
    if not rankings:
        raise CheckpointError(f"no checkpoint could be evaluated: {work.left_out[0]}")
    pictures = [options.out] if options.out else list(PICTURES)
    if options.json:
        save_ranking(rankings, *pictures)
        plain = [ranking.to_dict() for ranking in rankings]
        print_json({"rankings": plain, "left_out": work.left_out, "pictures": list(map(str, pictures))})
    else:
        show_rankings(rankings, work.left_out, out)
        save_ranking(rankings, *pictures)
        for picture in pictures:
            out.print(str(picture))


def show_rankings(rankings: Sequence[Ranking], left_out: Sequence[str], out: Console) -> None:
    """Prints a table for each dataset, with the conclusion."""
    if not out.is_terminal:
        out.width = 400  # so that paths are not broken
    for ranking in rankings:
        out.print(ranking_table(ranking, out.width))
        out.print(conclusion(ranking), soft_wrap=True)
        out.print()
    notes = "±: one standard error; differences are paired by document."
    out.print(f"{notes} Perplexity is comparable within one encoding only, and no number between datasets.")
    for line in left_out:
        out.print(f"left out: {line}")


def check(options: CompareOptions) -> None:
    """Raises ValueError for impossible options, before anything is read."""
    options.measure.check()
    if options.out and options.out.suffix not in KINDS:
        raise ValueError(f"--out {options.out} has no picture format: end it in {', '.join(KINDS)}")


def found_at(name: Path) -> list[Path]:
    """Returns the checkpoints at a path. Raises CheckpointError if there are none."""
    path = checkpoint.named(name)
    if path.is_file():
        return [path]
    found = [file for folder in checkpoint.runs(path) for file in checkpoint.epochs(folder)]
    if not found:
        what = "no checkpoint found in" if path.is_dir() else "there is no checkpoint or folder"
        raise CheckpointError(f"{what} {path}: name a run's folder, or one of the files in it")
    return found


def found_here() -> list[Path]:
    found = [file for folder in checkpoint.folders(Path()) for file in checkpoint.epochs(folder)]
    if not found:
        raise CheckpointError("no checkpoint found in the folders checkpoints*: train one first, with `make demo`")
    return found


@contextlib.contextmanager
def progress_on(out: Console, quiet: bool) -> Iterator[Show]:
    """Shows a progress bar on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("left"), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=out, transient=True, disable=quiet or not out.is_terminal) as bar:
        task = bar.add_task("opening the held-out text", total=None)
        yield lambda name, done, total: bar.update(task, description=name, completed=done, total=total)
