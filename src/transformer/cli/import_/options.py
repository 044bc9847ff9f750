"""The options of the import command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transformer.cli.options import POSITIONAL, parse


@dataclass(frozen=True)
class ImportOptions:
    """Make a checkpoint of a model of another program, which every command then takes."""

    source: str | None = field(default=None, metadata=POSITIONAL)
    """hf:OWNER/NAME or hf:OWNER/NAME@REVISION on the Hugging Face hub (hf:OWNER/NAME/FILE.gguf is one of its files), a
    folder with config.json, model.safetensors and tokenizer.json, or a .gguf file."""
    out: Path | None = None
    """The folder to write to, which must not hold a checkpoint yet. None: checkpoints_NAME."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub. None: main. The checkpoint records the commit."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Number format of the weights in the checkpoint. None: that of the source; float32 if it is quantised."""
    max_seq_len: int | None = None
    """Keep only the first positions of the model's context, so many. None: all. Within them the results are the same. A
    model with a sliding window, such as Mistral 0.1, can be imported with a context of at most that window."""


def read_options(arguments: Sequence[str]) -> ImportOptions:
    return parse(ImportOptions(), arguments, "import", check)


def check(options: ImportOptions) -> None:
    """Raises ValueError if there is no source, or no context is left."""
    if not options.source:
        raise ValueError("no source is given: hf:OWNER/NAME, a folder with config.json, or a .gguf file")
    if options.max_seq_len is not None and options.max_seq_len < 1:
        raise ValueError(f"max_seq_len={options.max_seq_len} must be at least 1")
