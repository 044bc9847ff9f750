"""The options of the interpret command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from transformer.cli.options import POSITIONAL, parse


@dataclass(frozen=True)
class InterpretOptions:
    """See inside a model: where its heads attend, and what each of them does in general."""

    checkpoint: Path | None = field(default=None, metadata=POSITIONAL)
    """The checkpoint to open. None: the latest; FOLDER: the latest in it. "best": the lowest validation loss of all
    runs here; FOLDER/best: of those in FOLDER. hf:OWNER/NAME, a folder with config.json
    or a .gguf file: a model of another program, imported at its first use."""
    prompt: str | None = None
    """The text to read: the report shows where every head attends in it. None: only the habits of all heads."""
    head: str | None = None
    """Show this head first: its layer and number, each from 0, for example 3.1."""
    text_file: Path | None = None
    """Measure the habits of all heads on this text (txt, md, jsonl or parquet, or a folder), with standard errors.
    None: on random tokens that are repeated once."""
    film: Path | None = None
    """The folder of a run that was trained with --watch-inside: write a page that plays its attention, step by step."""
    out: Path | None = None
    """The HTML file to write. None: interpret.html, with --film film.html, and no file with --json."""
    json: bool = False
    """Print one JSON object instead of the report."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    @property
    def page(self) -> Path | None:
        """The HTML file to write, if any."""
        return self.out or (None if self.json else Path("interpret.html"))

    @property
    def chosen_head(self) -> tuple[int, int] | None:
        """Layer and number of --head."""
        if self.head is None:
            return None
        layer, _, number = self.head.partition(".")
        return int(layer), int(number)


def read_options(arguments: Sequence[str]) -> InterpretOptions:
    return parse(InterpretOptions(), arguments, "interpret", check)


def check(options: InterpretOptions) -> None:
    """Raises ValueError for options that do not fit together."""
    if options.film is not None:
        default = InterpretOptions(film=options.film, out=options.out, device=options.device)
        for name in (
            field.name for field in fields(options) if getattr(options, field.name) != getattr(default, field.name)
        ):
            flag = "a checkpoint" if name == "checkpoint" else f"--{name.replace('_', '-')}"
            raise ValueError(f"--film plays the text that the run recorded: leave out {flag}")
    if options.prompt == "":
        raise ValueError("--prompt is empty: give a text of at least one token")
    if options.head is not None and not re.fullmatch(r"\d{1,6}\.\d{1,6}", options.head, re.ASCII):
        raise ValueError(f"--head {options.head} is not a layer and a head, each from 0, such as 3.1")
