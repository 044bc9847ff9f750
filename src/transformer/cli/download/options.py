"""The options of the download command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from transformer.cli.options import parse
from transformer.config import ConfigError, DataConfig, TrainConfig, seed_problems

UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


@dataclass(frozen=True)
class DownloadOptions:
    """Download text from the hub into the cache, to train later without a network."""

    data: DataConfig = field(default_factory=DataConfig)
    tokens: str = "100M"
    """Training tokens to download, for example 500k, 100M or 1B."""
    seed: int = TrainConfig.seed
    """The seed of the run that will use the text: it determines which text is read first."""


def read_options(arguments: Sequence[str]) -> DownloadOptions:
    return parse(DownloadOptions(), arguments, "download", check)


def check(options: DownloadOptions) -> None:
    """Raises ConfigError for options that cannot be downloaded."""
    problems = options.data.problems() + seed_problems(options.seed)
    if not options.data.is_on_hub:
        problems.append(
            f"dataset={options.data.dataset} is not on the hub: only fineweb and hf:OWNER/NAME can be downloaded"
        )
    if token_count(options.tokens) is None:
        problems.append(f"tokens={options.tokens!r} is not a number of tokens such as 500k, 100M or 1B")
    if problems:
        raise ConfigError(problems)


def token_count(text: str) -> int | None:
    """Returns the number that a text such as 1.5M stands for, or None."""
    match = re.fullmatch(r"([\d_,]*\.?\d+)([kmb]?)", text.strip().lower())
    count = round(float(match[1].replace("_", "").replace(",", "")) * UNITS[match[2]]) if match else 0
    return count or None
