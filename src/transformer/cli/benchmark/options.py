"""The options of the benchmark command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformer.cli.options import HIDDEN, parse
from transformer.config import Kernels, Weights


@dataclass(frozen=True)
class BenchmarkOptions:
    """Tokens per second with and without the key-value cache, over several lengths of text."""

    checkpoint: Path | None = None
    """The model to measure, also hf:OWNER/NAME, a folder with config.json or a .gguf file. None: the latest checkpoint,
    or a fresh model if there is none."""
    preset: str | None = None
    """Measure a fresh model with random weights: default, quick, tiny, demo, gpt2 or modern."""
    max_seq_len: int | None = None
    """Context of the fresh model in tokens. None: the preset's."""
    lengths: tuple[int, ...] = ()
    """Lengths to measure, in tokens, prompt included. None given: eight lengths from 10 to the context."""
    prompt_tokens: int = 1
    """Tokens in the prompt."""
    repeats: int = 3
    """Runs with and without the cache at each length; the median counts."""
    max_seconds: float = 30.0
    """Do not repeat runs of one kind at one length beyond this total time."""
    out: Path = Path("runs/benchmark_generation")
    """Folder for results.json, speed.png and speed.svg."""
    weights: Weights = "float32"
    """Round the weight matrices to this format first."""
    int8: bool = False
    """Same as --weights int8."""
    kernels: Kernels = "auto"
    """auto: faster equivalents of core functions, chosen by processor. plain: the code of the core files. A kind of
    processor: the choices for that kind."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    arguments: tuple[str, ...] = field(default=(), metadata=HIDDEN)
    """The words of the command line."""


def read_options(arguments: Sequence[str]) -> BenchmarkOptions:
    return parse(BenchmarkOptions(arguments=tuple(arguments)), arguments, "benchmark")
