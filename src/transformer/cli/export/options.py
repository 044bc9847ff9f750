"""The options of the export command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transformer.cli.options import POSITIONAL, parse
from transformer.config import near_miss

FORMATS = {"hf": "FOLDER", "gguf": "FILE.gguf", "onnx": "FILE.onnx"}
"""The formats, and what is written in each."""
PART = r"\w(?:[\w.-]{,94}\w)?"
REPOSITORY = re.compile(rf"hf:(?!.*(?:--|\.\.|\.git$)){PART}/{PART}", re.ASCII)
"""The names that the hub accepts."""


@dataclass(frozen=True)
class ExportOptions:
    """Write a model for other programs."""

    checkpoint: Path | None = field(default=None, metadata=POSITIONAL)
    """The checkpoint to export. None: the latest; FOLDER: the latest in it. "best": the lowest validation loss of all
    runs here; FOLDER/best: of those in FOLDER. hf:OWNER/NAME, a folder with config.json
    or a .gguf file: a model of another program, imported at its first use."""
    to: tuple[str, ...] = ()
    """The format and the path to write: hf FOLDER, for transformers; gguf FILE.gguf, for llama.cpp; or onnx FILE.onnx,
    for onnxruntime."""
    kind: Literal["f32", "f16", "q8_0", "q4_0"] | None = None
    """Number format of the matrices in a GGUF file, of 32, 16, 8.5 or 4.5 bits for each number. None: f16."""
    compare: bool = True
    """Load the export with transformers or onnxruntime, if it is installed, and compare logits and greedy text."""

    push_to: str | None = None
    """Upload the folder of --to hf to this repository of the hub, hf:USER/NAME. HF_TOKEN must be allowed to write."""
    public: bool = False
    """Make a new repository of --push-to public; otherwise it is private."""

    @property
    def format(self) -> str:
        return self.to[0]

    @property
    def path(self) -> Path:
        return Path(self.to[1]).expanduser()


def read_options(arguments: Sequence[str]) -> ExportOptions:
    return parse(ExportOptions(), arguments, "export", check)


def check(options: ExportOptions) -> None:
    """Raises ValueError for a format that does not exist, and for a missing path."""
    ways = " or ".join(f"--to {name} {what}" for name, what in FORMATS.items())
    if not options.to:
        raise ValueError(f"give the format and the path to write: {ways}")
    if options.format not in FORMATS:
        raise ValueError(f"there is no format {options.format!r}{near_miss(options.format, FORMATS)}; give {ways}")
    if len(options.to) != 2:
        raise ValueError(f"--to takes a format and one path, not {' '.join(options.to)!r}: {ways}")
    if (suffix := Path(FORMATS[options.format]).suffix) and options.path.suffix != suffix:
        raise ValueError(f"--to {options.format} {options.path}: the name of the file must end in {suffix}")
    if options.format != "gguf" and options.kind is not None:
        raise ValueError(f"--kind {options.kind} is for --to gguf FILE.gguf")
    check_upload(options)


def check_upload(options: ExportOptions) -> None:
    """Raises ValueError for flags of an upload that do not fit together."""
    if options.push_to is not None and options.format != "hf":
        raise ValueError("--push-to uploads the folder of --to hf FOLDER")
    if options.push_to is not None and not REPOSITORY.fullmatch(options.push_to):
        raise ValueError(f"--push-to {options.push_to} is not hf:USER/NAME, of letters, digits, - _ and .")
    if options.public and options.push_to is None:
        raise ValueError("--public is for --push-to hf:USER/NAME")
