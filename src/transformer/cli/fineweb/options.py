"""The options of the test-fineweb command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from transformer.cli.options import parse
from transformer.config import DataConfig, TrainConfig


@dataclass(frozen=True)
class FineWebOptions:
    """Fetch a little of FineWeb-Edu and show the files, the speed, the cache and the split."""

    data: DataConfig = field(default_factory=lambda: DataConfig(validation_tokens=20_000))
    units: int = 2
    """Row groups to read."""
    sample_tokens: int = 120
    """Tokens of training text to decode and show."""
    seed: int = TrainConfig.seed
    """Determines which text is read first, as in a run."""


def read_options(arguments: Sequence[str]) -> FineWebOptions:
    return parse(FineWebOptions(), arguments, "test-fineweb", lambda options: options.data.check())
