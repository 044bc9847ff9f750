"""The checkpoint that a command works with."""

from __future__ import annotations

from pathlib import Path

from transformer.cli.console import console, printable
from transformer.cli.download_progress import notifier
from transformer.config import Kernels, Weights
from transformer.interop import pretrained
from transformer.interop.importing import imported
from transformer.interop.sources import is_source
from transformer.training import checkpoint
from transformer.training.checkpoint import LoadedModel

MOST_NAMED = 4
"""Runs that a message names; the others are counted."""


def open_model(
    path: Path | None, device: str = "auto", weights: Weights = "float32", kernels: Kernels = "auto"
) -> LoadedModel:
    """Loads the checkpoint that find_checkpoint() returns, as transformer.load() does."""
    return pretrained.load_checkpoint(find_checkpoint(path), device, weights, kernels)


def on_this_disk(path: Path) -> Path:
    """Returns the path; for a source of another program, the checkpoint that it is imported to at its first use."""
    if not is_source(path.as_posix()):
        return path
    return imported(path.as_posix(), notifier(console(stderr=True), lambda message: None))


def weight_format(weights: Weights, int8: bool) -> Weights:
    """Returns the format that --weights and --int8 name. Raises ValueError if they name two."""
    if int8 and weights not in ("float32", "int8"):
        raise ValueError(f"--int8 and --weights {weights} name two formats: give one of them")
    return "int8" if int8 else weights


def find_checkpoint(path: Path | None) -> Path:
    """Returns the selected checkpoint. If it was chosen among several runs, prints the others on standard error.

    None: the latest in this folder. FOLDER: the latest there. "best": the lowest validation loss of all runs here;
    FOLDER/best: of those in FOLDER. A source of another program (interop/sources.py): the checkpoint that it becomes.
    Raises CheckpointError if there is none.
    """
    if path is not None and is_source(path.as_posix()):
        return on_this_disk(path)
    found = pretrained.find_checkpoint(path)
    if path is None or found != path:
        is_latest = path is None or path.is_dir()
        runs = checkpoint.runs_at(Path() if path is None else path if is_latest else path.parent)
        others = [str(run) for run in reversed(runs) if run != found.parent]
        if others:
            which = "latest" if is_latest else "best"
            more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
            advice = "; --checkpoint best is the one with the lowest validation loss" if path is None else ""
            line = f"the {which} of {len(runs)} runs; the others: {', '.join(others[:MOST_NAMED])}{more}{advice}"
            console(stderr=True).print(printable(line), style="dim")
    return found
