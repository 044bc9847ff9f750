"""The checkpoint that a command works with."""

from __future__ import annotations

from pathlib import Path

from transformer.cli.console import console, printable
from transformer.config import Kernels, Weights
from transformer.kernels import accelerate, round_weights
from transformer.training import checkpoint
from transformer.training.checkpoint import LoadedModel
from transformer.training.device import pick_device

MOST_NAMED = 4
"""Runs that a message names; the others are counted."""


def open_model(
    path: Path | None, device: str = "auto", weights: Weights = "float32", kernels: Kernels = "auto"
) -> LoadedModel:
    """Loads the checkpoint that find_checkpoint() returns.

    weights: the format to which the weight matrices are rounded. kernels: see accelerate(). Raises
    CheckpointError, a ValueError.
    """
    loaded = checkpoint.load_model(find_checkpoint(path), pick_device(device))
    accelerate(loaded.model, kernels)
    round_weights(loaded.model, weights)
    return loaded


def weight_format(weights: Weights, int8: bool) -> Weights:
    """Returns the format that --weights and --int8 name. Raises ValueError if they name two."""
    if int8 and weights not in ("float32", "int8"):
        raise ValueError(f"--int8 and --weights {weights} name two formats: give one of them")
    return "int8" if int8 else weights


def find_checkpoint(path: Path | None) -> Path:
    """Returns the selected checkpoint. If it was chosen among several runs, prints the others on standard error.

    None: the latest in this folder. "best": the lowest validation loss of all runs here; FOLDER/best: of those in
    FOLDER. Raises CheckpointError if there is none.
    """
    found = checkpoint.latest(Path()) if path is None else checkpoint.named(path)
    if path is None or found != path:
        runs = checkpoint.runs_at(Path() if path is None else path.parent)
        others = [str(run) for run in reversed(runs) if run != found.parent]
        if others:
            which = "latest" if path is None else "best"
            more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
            advice = "; --checkpoint best is the one with the lowest validation loss" if path is None else ""
            line = f"the {which} of {len(runs)} runs; the others: {', '.join(others[:MOST_NAMED])}{more}{advice}"
            console(stderr=True).print(printable(line), style="dim")
    return found
