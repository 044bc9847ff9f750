"""The checkpoint that a command works with."""

from __future__ import annotations

from pathlib import Path

from transformer.config import Kernels
from transformer.kernels import accelerate
from transformer.kernels.int8 import quantise
from transformer.training import checkpoint
from transformer.training.checkpoint import LoadedModel
from transformer.training.device import pick_device


def open_model(path: Path | None, device: str = "auto", int8: bool = False, kernels: Kernels = "auto") -> LoadedModel:
    """Loads a checkpoint. None: the latest in this folder; "best" or FOLDER/best: the lowest validation loss.

    int8: the weight matrices are rounded to 8 bits. kernels: see accelerate(). Raises CheckpointError, a ValueError.
    """
    found = checkpoint.named(path) if path else checkpoint.latest(Path())
    loaded = checkpoint.load_model(found, pick_device(device))
    accelerate(loaded.model, kernels)
    if int8:
        quantise(loaded.model)
    return loaded
