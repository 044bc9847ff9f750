"""The demo command; commands/demo.py documents it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformer.cli.console import console
from transformer.cli.evaluate.command import main as evaluate
from transformer.cli.generate.command import main as generate
from transformer.cli.options import parse
from transformer.cli.train.run import train
from transformer.config import PRESETS
from transformer.training.checkpoint import epoch_path

TEXTS = 3
"""Texts to write: one alone may be short, since the model may end a scene at any time."""


@dataclass(frozen=True)
class DemoOptions:
    """Trains on the bundled Shakespeare, draws the loss curve, measures the model, and writes with it."""

    prompt: str = "ROMEO:\n"
    """What the trained model continues."""
    seed: int = 1
    """Fixes the training and the text."""


def main(arguments: Sequence[str]) -> None:
    options = parse(DemoOptions, arguments, "demo")
    started = time.perf_counter()
    out = console()
    out.print("1. Train on the bundled plays of Shakespeare", style="bold")
    trainer = train(replace(PRESETS["demo"], seed=options.seed).check())
    path = str(epoch_path(trainer.directory, trainer.epoch, trainer.data.tokenizer.short_name))
    out.print("\n2. Measure on scenes that were never trained on", style="bold")
    evaluate(["--checkpoint", path])
    out.print("\n3. Write", style="bold")
    for seed in range(options.seed, options.seed + TEXTS):
        generate(["--checkpoint", path, "--prompt", options.prompt, "--seed", str(seed)])
    out.print(f"\nAll in {time.perf_counter() - started:.0f} s. Go on:")
    out.print('  uv run python main.py generate --prompt "JULIET:" --preset creative')
    out.print("  uv run python main.py train --preset demo --dataset PATH --checkpoint-dir checkpoints_mine")
