"""What `main.py benchmark` says of its measurements: files, a table, and lines below it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from transformer import DecoderOnlyTransformer
from transformer.cli.benchmark.growth import KINDS, Growth, plot
from transformer.cli.benchmark.speed import Comparison


def save(folder: Path, setting: dict[str, Any], results: Sequence[Comparison], title: str) -> str:
    """Writes the figures and the picture, as .png and .svg; returns the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / name for name in ("results.json", "speed.png", "speed.svg")]
    contents = {**setting, "results": [{**asdict(result), "speedup": result.speedup} for result in results]}
    files[0].write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
    picture = plot(results, title)
    for file in files[1:]:
        picture.savefig(file, dpi=150)
    return ", ".join(map(str, files))


def table(results: Sequence[Comparison], prompt_tokens: int) -> Table:
    """Returns a row for every length."""
    prompt = f"{prompt_tokens} token{'s' * (prompt_tokens > 1)}"
    caption = "first token: after a prompt of so many tokens"
    rows = Table(title=f"writing from a prompt of {prompt}", title_justify="left", caption=caption)
    for heading in ("tokens", "with cache", "without", "speed-up", "first token", "cache", "output"):
        rows.add_column(heading, justify="right")
    for result in results:
        speeds = (f"{speed.tokens_per_second:,.0f}/s" for speed in (result.cached, result.uncached))
        first = f"{result.first_token_seconds * 1e3:.1f} ms"
        same = "same" if result.first_difference is None else "DIFFERENT"
        sign = "=" if result.cache_bytes == result.formula_bytes else "NOT"
        size = f"{result.cache_bytes / 1024:,.1f} KiB {sign} formula"
        rows.add_row(f"{result.length:,}", *speeds, f"{result.speedup:.2f}x", first, size, same)
    return rows


def summary(results: Sequence[Comparison], fits: Mapping[str, Growth | None], repeats: int) -> list[str]:
    """Returns lines on the growth of the seconds, on texts written less often than asked, and on unsteady runs."""
    lines = growth_lines(fits)
    for name, kind, _, _ in KINDS:
        runs = {result.length: getattr(result, kind).runs for result in results}
        fewer = [f"{count}x {length:,} tokens" for length, count in runs.items() if count < repeats]
        if fewer:
            lines.append(f"{name}, to save time, not {repeats}x but: {', '.join(fewer)} (see --max-seconds)")
    spread = max(speed.spread for result in results for speed in (result.cached, result.uncached))
    if repeats > 1:
        lines.append(
            f"runs of one kind differ in time by up to {spread:.0%}" + "; is the machine busy?" * (spread > 0.2)
        )
    return lines


def growth_lines(fits: Mapping[str, Growth | None]) -> list[str]:
    """Returns the exponents and what they mean; nothing where there were too few lengths."""
    lines = []
    for name, kind, _, _ in KINDS:
        if fit := fits[kind]:
            power = f"length ** {fit.exponent:.2f} (± {fit.standard_error:.2f})"
            lines.append(f"{name}, seconds grow as {power} from {fit.shortest:,} to {fit.longest:,} tokens")
    if lines:
        lines.append("An exponent near 1: every token costs the same. Near 2: in proportion to the text before it.")
    uncached = fits["uncached"]
    if uncached and uncached.exponent < 1.5:
        lines.append(
            "Texts this short hide the square: a token's cost is mostly that of reading the weights, once, however "
            "much text there is. A longer context shows it: --preset default --max-seq-len 1024."
        )
    return lines


def memory(model: DecoderOnlyTransformer, result: Comparison) -> str:
    """Returns a line that compares the cache's bytes with the formula's, factor by factor."""
    config, number = model.config, model.head.weight.element_size()
    factors = f"2 x {config.kv_heads} heads x {result.length:,} tokens x {config.head_dim} x {number} bytes"
    equal = result.formula_bytes == result.cache_bytes
    verdict = "as measured" if equal else f"BUT MEASURED: {result.cache_bytes:,}"
    return f"cache: {factors} a layer, {config.num_layers} layers: {result.formula_bytes:,} bytes, {verdict}"
