"""The options of the interpret command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from transformer.cli.options import POSITIONAL, parse


@dataclass(frozen=True)
class InterpretOptions:
    """See inside a model: its prediction block by block, what its heads do, what decides between two prompts."""

    checkpoint: Path | None = field(default=None, metadata=POSITIONAL)
    """The checkpoint to open. None: the latest; FOLDER: the latest in it. "best": the lowest validation loss of all
    runs here; FOLDER/best: of those in FOLDER. hf:OWNER/NAME, a folder with config.json
    or a .gguf file: a model of another program, imported at its first use."""
    prompt: str | None = None
    """The text to read: the report explains the prediction of the token after it. None: only the habits of all
    heads."""
    versus: str | None = None
    """A second prompt of as many tokens, which another token follows: patching then shows which activations decide
    between the two."""
    target: str | None = None
    """Explain the prediction of this next token, for example " Paris". None: the most likely one."""
    rather_than: str | None = None
    """Explain why the target is predicted and not this token. None: with --versus, the most likely token there."""
    head: str | None = None
    """Show one head in detail: its layer and number, each from 0, for example 3.1."""
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
        for name in (own.name for own in fields(options)):
            if getattr(options, name) == getattr(default, name):
                continue
            flag = "a checkpoint" if name == "checkpoint" else f"--{name.replace('_', '-')}"
            raise ValueError(f"--film plays the text that the run recorded: leave out {flag}")
    if options.out is not None and options.out.is_dir():
        example = options.out / ("film.html" if options.film else "interpret.html")
        raise ValueError(f"--out {options.out} is a folder: name a file in it, such as {example}")
    for flag, text in (("--prompt", options.prompt), ("--versus", options.versus)):
        if text == "":
            raise ValueError(f"{flag} is empty: give a text of at least one token")
    for flag, given in (
        ("--versus", options.versus),
        ("--target", options.target),
        ("--rather-than", options.rather_than),
        ("--head", options.head),
    ):
        if given is not None and options.prompt is None:
            raise ValueError(f"{flag} is about a prompt: give --prompt TEXT")
    if options.head is not None and not re.fullmatch(r"\d{1,6}\.\d{1,6}", options.head, re.ASCII):
        raise ValueError(f"--head {options.head} is not a layer and a head, each from 0, such as 3.1")
