"""The options of the demo command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from transformer.cli.options import HIDDEN, parse
from transformer.config import ConfigError, seed_problems

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
    resume: bool = False
    """Continue the training of a demo that was stopped."""
    arguments: tuple[str, ...] = field(default=(), metadata=HIDDEN)
    """The command line."""


def read_options(arguments: Sequence[str]) -> DemoOptions:
    return replace(parse(DemoOptions(), arguments, "demo", check), arguments=tuple(arguments))


def check(options: DemoOptions) -> None:
    """Raises ConfigError for a seed that is too large for the last text."""
    if found := seed_problems(options.seed + TEXTS - 1):
        raise ConfigError(found)
