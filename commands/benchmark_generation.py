"""Measures generation with and without the key-value cache: tokens per second, first token, memory, equal output.

    uv run python main.py benchmark                                     the latest checkpoint, or else a fresh model
    uv run python main.py benchmark --preset default --max-seq-len 512  a fresh model with a longer context

Speed does not depend on what a model has learnt, so random weights will do. Each length is a text written greedily
from a short prompt, inside the context; runs with and without the cache take turns, and medians are shown.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.progress import track
from rich.table import Table
from torch import Tensor

from cli import console, open_model, parse
from transformer import DecoderOnlyTransformer, KVCache, ModelConfig, SamplingConfig
from transformer.checkpoint import epochs, folders
from transformer.config import PRESETS, near_miss
from transformer.generation import stream_tokens
from transformer.runtime.device import pick_device


@dataclass(frozen=True)
class BenchmarkOptions:
    """Tokens per second with and without the key-value cache, over several lengths of text."""

    checkpoint: Path | None = None
    """Which model to measure; None: the latest, or a fresh model where there is no checkpoint."""
    preset: str | None = None
    """A fresh model of this configuration, with random weights: default, quick, tiny, gpt2 or modern."""
    max_seq_len: int | None = None
    """The fresh model's context in tokens; None: the preset's."""
    lengths: tuple[int, ...] = ()
    """Tokens in each text, prompt included; none given: an eighth of the context, doubled up to all of it."""
    prompt_tokens: int = 8
    """Tokens in the prompt, drawn at random."""
    repeats: int = 3
    """Runs with and without the cache at each length, after one of each that is not counted."""
    out: Path = Path("runs/benchmark_generation")
    """Where results.json and speed.png go."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


@dataclass(frozen=True)
class Row:
    """What was measured at one length; times are medians in seconds."""

    length: int
    new_tokens: int
    cached_seconds: float
    uncached_seconds: float
    cached_first_token_seconds: float
    uncached_first_token_seconds: float
    cache_bytes: int
    formula_bytes: int
    first_difference: int | None
    """Place of the first token that the cache changed; None, as it should be, where the texts are equal."""


def main(arguments: Sequence[str]) -> None:
    options = parse(BenchmarkOptions, arguments, "benchmark")
    model, about = open_or_make_model(options)
    lengths = pick_lengths(options, model.config.max_seq_len)
    device = model.head.weight.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    out = console()
    out.print(f"[dim]{about}\n{where}, {torch.get_num_threads()} CPU threads, torch {torch.__version__}[/dim]")
    steps = track(lengths, "measuring", console=out, transient=True, disable=not out.is_terminal)
    rows = [measure(model, length, options) for length in steps]
    command = shlex.join(["main.py", "benchmark", *arguments])
    setting = {"command": command, "model": about, "config": model.config.to_dict(), "device": where}
    counts = {"threads": torch.get_num_threads(), "prompt_tokens": options.prompt_tokens, "repeats": options.repeats}
    results = {**setting, **counts, "torch": torch.__version__, "rows": [asdict(row) for row in rows]}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    plot(rows, about).savefig(options.out / "speed.png", dpi=150)
    show(out, rows, model.config)
    out.print(f"written: {options.out / 'results.json'} and {options.out / 'speed.png'}")
    for row in rows:
        if row.first_difference is not None:
            place = f"at length {row.length}, from token {row.first_difference} on"
            raise ValueError(f"THE CACHE CHANGED THE OUTPUT {place}: a bug, or two tokens equally likely to rounding")


def open_or_make_model(options: BenchmarkOptions) -> tuple[DecoderOnlyTransformer, str]:
    """Returns the model to measure, in eval mode, and a line that says which it is."""
    fresh = options.preset is not None or options.max_seq_len is not None
    if options.checkpoint and fresh:
        raise ValueError("--preset and --max-seq-len make a fresh model: leave them out to measure a --checkpoint")
    if not fresh and (options.checkpoint or epochs(Path()) or folders(Path())):
        loaded = open_model(options.checkpoint, options.device)
        return loaded.model, loaded.description
    name = options.preset or "default"
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}{near_miss(name, PRESETS)}; one of {', '.join(PRESETS)}")
    config = PRESETS[name].model
    if options.max_seq_len is not None:
        config = replace(config, max_seq_len=options.max_seq_len)
    torch.manual_seed(1)
    model = DecoderOnlyTransformer(config).to(pick_device(options.device)).eval()
    millions = sum(model.parameter_counts().values()) / 1e6
    return model, f"fresh model with random weights (preset {name}, {millions:.1f}M parameters)"


def pick_lengths(options: BenchmarkOptions, limit: int) -> list[int]:
    """Returns the lengths to measure, shortest first. Raises ValueError for one that the context cannot hold."""
    if options.repeats < 1 or options.prompt_tokens < 1:
        raise ValueError("repeats and prompt_tokens must be at least 1")
    usual = [length for length in (limit // 8, limit // 4, limit // 2) if length > options.prompt_tokens]
    lengths = sorted(set(options.lengths or [*usual, limit]))
    for length in lengths:
        if not options.prompt_tokens < length <= limit:
            wanted = f"above prompt_tokens={options.prompt_tokens} and at most max_seq_len={limit}"
            raise ValueError(f"length {length} must be {wanted}; --max-seq-len gives a fresh model a longer context")
    return lengths


def measure(model: DecoderOnlyTransformer, length: int, options: BenchmarkOptions) -> Row:
    """Writes a text of `length` tokens with and without the cache, in turns, and compares time and output."""
    weight, config = model.head.weight, model.config
    shape = (1, options.prompt_tokens)
    prompt = torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(1)).to(weight.device)
    new = length - options.prompt_tokens
    runs = [[write(model, prompt, new, use_cache) for use_cache in (True, False)] for _ in range(options.repeats + 1)]
    cached, uncached = zip(*runs[1:], strict=True)
    texts = zip(*(text for pair in runs for text, _, _ in pair), strict=True)  # the same place in every run
    different = (place for place, ids in enumerate(texts, options.prompt_tokens) if len(set(ids)) > 1)
    cache = KVCache.allocate(config, 1, length, weight.device, weight.dtype)  # as generation allocates it
    return Row(
        length,
        new,
        *(median(total for _, _, total in kind) for kind in (cached, uncached)),
        *(median(first for _, first, _ in kind) for kind in (cached, uncached)),
        cache_bytes=cache.capacity_bytes,
        formula_bytes=config.num_layers * 2 * config.kv_heads * length * config.head_dim * weight.element_size(),
        first_difference=next(different, None),
    )


def write(
    model: DecoderOnlyTransformer, prompt: Tensor, new_tokens: int, use_cache: bool
) -> tuple[list[int], float, float]:
    """Returns the ids written after prompt (1, P), and the seconds to the first of them and to the last."""
    ids: list[int] = []
    started, first = time.perf_counter(), 0.0
    for token in stream_tokens(model, prompt, SamplingConfig("greedy"), new_tokens, use_cache=use_cache):
        ids.append(int(token))  # waits for the device, as a reader of the text would
        first = first or time.perf_counter() - started
    return ids, first, time.perf_counter() - started


def show(out: Any, rows: Sequence[Row], config: ModelConfig) -> None:
    """Prints the measurements as a table, and what they say about the output and the cache's size."""
    table = Table(title="generation with and without the cache", title_justify="left")
    for heading in ("tokens", "with, tok/s", "without, tok/s", "speed-up", "first token, ms", "cache, KiB", "output"):
        table.add_column(heading, justify="right")
    for row in rows:
        speeds = (f"{row.new_tokens / seconds:,.0f}" for seconds in (row.cached_seconds, row.uncached_seconds))
        firsts = f"{row.cached_first_token_seconds * 1e3:.1f} / {row.uncached_first_token_seconds * 1e3:.1f}"
        same = "same" if row.first_difference is None else "[bold red]DIFFERENT[/bold red]"
        table.add_row(
            str(row.length), *speeds, f"{row.uncached_seconds / row.cached_seconds:.2f}x", firsts,
            f"{row.cache_bytes / 1024:,.0f}", same,
        )  # fmt: skip
    out.print(table)


