"""The demo command; commands/demo.py documents it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformer.cli.console import console
from transformer.cli.evaluate.command import main as evaluate
from transformer.cli.generate.command import main as generate
from transformer.cli.options import command_line, parse
from transformer.cli.train.run import train
from transformer.config import ConfigError, seed_problems
from transformer.presets import PRESETS
from transformer.training.checkpoint import epoch_path

TEXTS = 3
"""Texts to generate; a single one may be short, because the model may end a scene at any point."""


@dataclass(frozen=True)
class DemoOptions:
    """Train on the bundled Shakespeare, draw the loss curve, evaluate the model, and generate text with it."""

    prompt: str = "ROMEO:\n"
    """The text that the trained model continues."""
    seed: int = 1
    """Seed of the training and of the generated text."""
    max_steps: int | None = None
    """Stop training after this many steps. None: the length of the preset."""


def main(arguments: Sequence[str]) -> None:
    options = parse(DemoOptions, arguments, "demo")
    if found := seed_problems(options.seed + TEXTS - 1):  # the last text has this one
        raise ConfigError(found)
    started = time.perf_counter()
    config = replace(PRESETS["demo"], seed=options.seed)
    if options.max_steps is not None:
        config = replace(config, max_steps=options.max_steps)
    out = console()
    out.print("1. Train on the bundled plays of Shakespeare", style="bold")
    trainer = train(config.check())
    path = str(epoch_path(trainer.directory, trainer.epoch, trainer.data.tokenizer.short_name))
    out.print("\n2. Evaluate on held-out scenes", style="bold")
    evaluate(["--checkpoint", path])
    out.print("\n3. Generate", style="bold")
    for seed in range(options.seed, options.seed + TEXTS):
        generate(["--checkpoint", path, "--prompt", options.prompt, "--seed", str(seed)])
    out.print(f"\nFinished in {time.perf_counter() - started:.0f} s. Next, for example:")
    out.print(f'  {command_line()} generate --prompt "JULIET:" --preset creative')
    out.print(f"  {command_line()} train --preset demo --dataset PATH --checkpoint-dir checkpoints_mine")
