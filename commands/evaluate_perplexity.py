"""Measures a checkpoint on the validation text of the dataset that it was trained on.

uv run python main.py evaluate                              the latest checkpoint
uv run python main.py evaluate --checkpoint checkpoints/model_epoch_10_cl100k.pt
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from cli import console, open_model, parse, run
from transformer.checkpoint import LoadedModel
from transformer.dataset import open_dataset
from transformer.perplexity import Evaluation, evaluate_perplexity


@dataclass(frozen=True)
class EvaluateOptions:
    """Perplexity and bits per byte of a checkpoint on held-out text."""

    checkpoint: Path | None = None
    """Which checkpoint to measure; best, or FOLDER/best: of the lowest validation loss. None: the latest."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


def main(arguments: Sequence[str]) -> None:
    options = parse(EvaluateOptions, arguments, "evaluate")
    loaded = open_model(options.checkpoint, options.device)
    out = console()
    out.print(loaded.description, style="dim")
    started = time.perf_counter()
    score = measure(loaded)
    vocab = loaded.config.model.vocab_size
    table = Table(title=f"held-out text of {loaded.config.data.dataset}", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("what it says")
    table.add_row("loss", f"{score.loss:.4f}", f"nats a token; knowing nothing gives {math.log(vocab):.2f}")
    table.add_row("perplexity", f"{score.perplexity:.2f}", f"as unsure as among so many tokens; at most {vocab:,}")
    table.add_row("bits per byte", f"{score.bits_per_byte:.4f}", "comparable between encodings; plain text is 8")
    out.print(table)
    seconds = time.perf_counter() - started
    out.print(f"{score.tokens:,} tokens, {score.text_bytes:,} bytes, {seconds:.1f} s")


def measure(loaded: LoadedModel) -> Evaluation:
    """Scores a model on its own dataset's validation text, with its own encoding, masked as in its training."""
    data = open_dataset(loaded.config.data, loaded.tokenizer)
    end_of_text = loaded.tokenizer.eot_id if loaded.config.data.mask_documents else None
    return evaluate_perplexity(loaded.model, *data.validation, data.validation_bytes, end_of_text=end_of_text)


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
