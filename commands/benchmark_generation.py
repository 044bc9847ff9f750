"""Measures generation with and without the key-value cache: tokens per second, first token, memory, equal output.

    uv run python main.py benchmark                                     the latest checkpoint, or else a fresh model
    uv run python main.py benchmark --preset default --max-seq-len 512  a fresh model with a longer context

Speed does not depend on what a model has learnt, so random weights will do. Each length is a text written greedily
from a short prompt, inside the context; runs with and without the cache take turns, and medians are shown.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.progress import track
from rich.table import Table

from cli import console, open_model, parse, run
from generation_speed import Comparison, compare, formula_bytes, plot
from transformer import DecoderOnlyTransformer
from transformer.checkpoint import epochs, folders
from transformer.config import PRESETS, near_miss
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
    """Tokens in the prompt."""
    repeats: int = 3
    """Counted runs with and without the cache at each length."""
    out: Path = Path("runs/benchmark_generation")
    """Where results.json and speed.png go."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


def main(arguments: Sequence[str]) -> None:
    options = parse(BenchmarkOptions, arguments, "benchmark")
    model, about = open_or_make_model(options)
    lengths = pick_lengths(options, model.config.max_seq_len)
    device, threads = model.head.weight.device, torch.get_num_threads()
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    out = console()
    out.print(f"{about}\n{where}, {threads} CPU threads, torch {torch.__version__}", style="dim")
    steps = track(lengths, "measuring", console=out, transient=True, disable=not out.is_terminal)
    results = [compare(model, length, options.prompt_tokens, options.repeats) for length in steps]
    setting = {
        "command": shlex.join(["main.py", "benchmark", *arguments]),
        "model": about,
        "config": model.config.to_dict(),
        "device": where,
        "threads": threads,
        "torch": torch.__version__,
        "prompt_tokens": options.prompt_tokens,
        "repeats": options.repeats,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    written = options.out / "results.json", options.out / "speed.png"
    contents = {**setting, "results": [{**asdict(result), "speedup": result.speedup} for result in results]}
    written[0].write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
    plot(results, about).savefig(written[1], dpi=150)
    out.print(table(results, options.prompt_tokens))
    out.print(memory(model, results[-1]))
    spread = max(speed.spread for result in results for speed in (result.cached, result.uncached))
    if options.repeats > 1:
        out.print(f"runs of one kind differ in time by up to {spread:.0%}" + "; is the machine busy?" * (spread > 0.2))
    out.print(f"written: {written[0]}, {written[1]}")
    for result in results:
        if result.first_difference is not None:
            where = f"at length {result.length}, from token {result.first_difference} on"
            raise ValueError(f"THE CACHE CHANGED THE OUTPUT {where}: a bug, or two tokens equal to rounding")
    out.print("The texts with and without the cache are the same, token for token, at every length.")


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


def table(results: Sequence[Comparison], prompt_tokens: int) -> Table:
    """Returns a row for every length."""
    rows = Table(title=f"writing from a prompt of {prompt_tokens} tokens", title_justify="left")
    for heading in ("tokens", "with cache", "without", "speed-up", "first token", "cache", "output"):
        rows.add_column(heading, justify="right")
    for result in results:
        speeds = (f"{speed.tokens_per_second:,.0f}/s" for speed in (result.cached, result.uncached))
        first = f"{result.cached.first_token_seconds * 1e3:.1f} ms"
        same = "same" if result.first_difference is None else "DIFFERENT"
        size = f"{result.cache_bytes / 1024:,.0f} KiB"
        rows.add_row(str(result.length), *speeds, f"{result.speedup:.2f}x", first, size, same)
    return rows


def memory(model: DecoderOnlyTransformer, result: Comparison) -> str:
    """Returns a line that compares the cache's bytes with the formula's."""
    config, number = model.config, model.head.weight.element_size()
    formula = formula_bytes(config, result.length, number)
    factors = f"2 x {config.kv_heads} heads x {result.length} tokens x {config.head_dim} x {number} bytes"
    verdict = "as allocated" if formula == result.cache_bytes else f"BUT ALLOCATED: {result.cache_bytes:,}"
    return f"cache: {factors} a layer, {config.num_layers} layers: {formula:,} bytes, {verdict}"


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
