"""The options of the inspect command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformer.cli.options import POSITIONAL, parse


@dataclass(frozen=True)
class InspectOptions:
    """Show a checkpoint's config, encoding, parameters, training tokens, metrics and provenance, and check it."""

    checkpoint: Path | None = field(default=None, metadata=POSITIONAL)
    """A checkpoint, a training state (a file or a folder), or a run's folder (its latest checkpoint); "best" or
    FOLDER/best: the lowest validation loss. None: the latest here. hf:OWNER/NAME, a folder with config.json or a .gguf
    file: a model of another program, imported at its first use."""
    json: bool = False
    """Print everything as one JSON object, with every setting."""


def read_options(arguments: Sequence[str]) -> InspectOptions:
    return parse(InspectOptions(), arguments, "inspect")
