"""The compare command; commands/compare.py documents it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from transformer.cli.compare.options import CompareOptions
from transformer.cli.compare.score import Scoring
from transformer.cli.compare.table import conclusion, ranking_table
from transformer.cli.console import console, writing_files
from transformer.cli.download_progress import notifier
from transformer.cli.json_output import print_json
from transformer.cli.models import on_this_disk
from transformer.cli.progress import progress_bar
from transformer.data.contracts import silent
from transformer.evaluation.ranking import Ranking
from transformer.reporting.metrics_log import METRICS_FILE
from transformer.reporting.ranking_plot import save_ranking
from transformer.training import checkpoint
from transformer.training.checkpoint import CheckpointError

PICTURES = (Path("runs/compare/compare.png"), Path("runs/compare/compare.svg"))


def main(options: CompareOptions) -> None:
    named = [*options.checkpoints, *([options.directory] if options.directory else [])]
    paths, without = found_at(named) if named else found_here()
    out = console()
    with progress_bar(out, "opening the held-out text", options.json) as show:
        notify = silent if options.json else notifier(out, lambda message: None)
        work = Scoring(options.measure, options.device, options.kernels, show, notify)
        rankings = work.rankings({path.resolve(): path for path in paths}.values())
    work.left_out = [*without, *work.left_out]
    if not rankings:
        raise CheckpointError(f"no checkpoint could be evaluated: {work.left_out[0]}")
    pictures = [options.out] if options.out else list(PICTURES)
    if options.json:
        plain = [ranking.to_dict() for ranking in rankings]
        print_json({"rankings": plain, "left_out": work.left_out, "pictures": list(map(str, pictures))})
    else:
        show_rankings(rankings, work.left_out, out)
    with writing_files():
        save_ranking(rankings, *pictures)
    if not options.json:
        for picture in pictures:
            out.print(str(picture))


def show_rankings(rankings: Sequence[Ranking], left_out: Sequence[str], out: Console) -> None:
    """Prints a table for each dataset, with the conclusion."""
    if out.soft_wrap:
        out.width = 400  # so that paths are not broken
    for ranking in rankings:
        out.print(ranking_table(ranking, out.width))
        out.print(conclusion(ranking), soft_wrap=True)
        out.print()
    notes = "±: one standard error; differences are paired by document."
    out.print(f"{notes} Perplexity is comparable within one encoding only, and no number between datasets.")
    for line in left_out:
        out.print(f"left out: {line}")


def found_at(names: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Returns the checkpoints at the paths, and a note for each folder without one.

    Raises CheckpointError for a path that does not exist, or if no folder has a checkpoint.
    """
    found: list[Path] = []
    notes = []
    for name in names:
        path = checkpoint.named(on_this_disk(name))
        own = [path] if path.is_file() else [one for run in checkpoint.runs(path) for one in checkpoint.epochs(run)]
        if not own:
            what = "no checkpoint found in" if path.is_dir() else "there is no checkpoint or folder"
            notes.append(f"{what} {path}: name a run's folder, or one of the files in it")
        if not own and not path.is_dir():
            raise CheckpointError(notes[-1])
        found += own
    if not found:
        raise CheckpointError(notes[0])
    return found, notes


def found_here() -> tuple[list[Path], list[str]]:
    """Returns the checkpoints in the folders checkpoints* here, and a note for each run without one."""
    runs = checkpoint.folders(Path())
    found = [file for run in runs for file in checkpoint.epochs(run)]
    if not found:
        raise CheckpointError("no checkpoint found in the folders checkpoints*: train one first, with `make demo`")
    started = sorted(
        {file.parent for depth in ("*", "*/*") for file in Path().glob(f"checkpoints{depth}/{METRICS_FILE}")}
    )
    return found, [
        f"no checkpoint found in {run}: the first one follows an epoch" for run in started if run not in runs
    ]
