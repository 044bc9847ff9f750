"""Measures every checkpoint and ranks them by bits per byte, which encodings of different sizes share.

uv run python main.py compare                               every checkpoints* folder here
uv run python main.py compare --directory checkpoints_demo
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import track
from rich.table import Table

from cli import console, one_line, open_model, parse, run
from measuring import MeasureOptions, Texts, score
from transformer import checkpoint
from transformer.checkpoint import CheckpointError
from transformer.runtime.device import pick_device


@dataclass(frozen=True)
class CompareOptions:
    """All checkpoints, ranked. Each is measured on the held-out text of the dataset that it was trained on."""

    directory: Path | None = None
    """A folder of checkpoints; None: every folder here named checkpoints*."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


def main(arguments: Sequence[str]) -> None:
    options = parse(CompareOptions, arguments, "compare")
    pick_device(options.device)
    folders = [options.directory] if options.directory else checkpoint.folders(Path())
    paths = [path for folder in folders for path in checkpoint.epochs(folder)]
    if not paths:
        where = options.directory or "the folders checkpoints*"
        raise CheckpointError(f"no checkpoint found in {where}: train one first, with `make demo`")
    out = console()
    ranked, broken = [], []
    how = MeasureOptions()
    texts = Texts(how)
    for path in track(paths, "measuring", console=out, transient=True, disable=not out.is_terminal):
        try:
            loaded = open_model(path, options.device)
            ranked.append((score(loaded, texts.of(loaded), how).evaluation, loaded))
        except (ValueError, OSError) as error:  # damaged, or its text is no longer there
            reason = one_line(str(error))
            broken.append(reason if str(path) in reason else f"{path}: {reason}")
    ranked.sort(key=lambda pair: pair[0].bits_per_byte)
    table = Table(title="checkpoints, best first", title_justify="left")
    for heading in ("checkpoint", "dataset", "bits per byte", "perplexity", "loss", "tokens seen"):
        text = heading in ("checkpoint", "dataset")
        table.add_column(heading, justify="left" if text else "right", overflow="fold")
    for result, loaded in ranked:
        numbers = (f"{result.bits_per_byte:.4f}", f"{result.perplexity:.2f}", f"{result.loss:.4f}")
        table.add_row(str(loaded.path), loaded.config.data.dataset, *numbers, f"{loaded.contents['tokens']:,}")
    out.print(table)
    out.print("Perplexity and loss compare only within one encoding, all three only within one dataset.")
    for line in broken:
        out.print(f"left out: {line}")


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
