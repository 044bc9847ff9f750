"""The benchmark command; commands/benchmark_generation.py documents it."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.table import Column, Table
from torch import Tensor

from transformer import DecoderOnlyTransformer, KVCache
from transformer.cli.benchmark.options import BenchmarkOptions
from transformer.cli.console import console, writing_files
from transformer.cli.models import open_model, weight_format
from transformer.cli.options import program
from transformer.kernels import accelerate, round_weights
from transformer.presets import preset_named
from transformer.reporting.figures import save_figure
from transformer.training.checkpoint import epochs, folders
from transformer.training.device import pick_device
from transformer.training.files import write_text


def main(options: BenchmarkOptions) -> None:
    model, about = open_or_make_model(options)
    lengths = pick_lengths(options, model.config.max_seq_len)
    device, threads, out = model.device, torch.get_num_threads(), console()
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    out.print(f"{about}\n{where}, {threads} CPU threads, torch {torch.__version__}", style="dim")
    with out.status("measuring"):
        rows = [measure(model, length, options) for length in lengths]
    results = {
        "command": shlex.join([program(), "benchmark", *options.arguments]), "model": about,
        "config": model.config.to_dict(), "device": where, "kernels": options.kernels, "threads": threads,
        "torch": torch.__version__, "prompt_tokens": options.prompt_tokens, "repeats": options.repeats,
        "max_seconds": options.max_seconds, "results": rows,
    }  # fmt: skip
    out.print(table(rows))
    with writing_files():
        save_figure(plot(rows, f"{about}; {where}"), options.out / "speed.png", options.out / "speed.svg")
        write_text(options.out / "results.json", json.dumps(results, indent=2) + "\n")
    out.print(f"written: {options.out}")
    if different := [row["length"] for row in rows if not row["same_text"]]:
        raise ValueError(f"THE CACHE CHANGED THE OUTPUT at length {different[0]}: a bug, or two logits that are equal")
    out.print("The texts with and without the cache are the same, token for token, at every length.")


def measure(model: DecoderOnlyTransformer, length: int, options: BenchmarkOptions) -> dict[str, Any]:
    """Returns the medians for texts of `length` tokens; runs with and without the cache alternate."""
    ids = torch.randint(model.config.vocab_size, (1, length), generator=torch.Generator().manual_seed(1))
    ids, new_tokens = ids.to(model.device), length - options.prompt_tokens
    prompt, most_of_it = ids[:, : options.prompt_tokens], ids[:, : max(1, length - 1)]
    for use_cache in (True, False):
        timed(model, prompt, min(new_tokens, 8), use_cache)  # warm-up
    texts: list[list[int]] = []
    seconds: dict[str, list[float]] = {"cached": [], "uncached": []}
    for _ in range(options.repeats):
        for kind, runs in seconds.items():
            if not runs or sum(runs) + runs[-1] <= options.max_seconds:
                text, elapsed = timed(model, prompt, new_tokens, kind == "cached")
                runs.append(elapsed)
                texts.append(text)
    cache = KVCache.allocate(model.config, 1, length, "meta", model.embeddings.token.weight.dtype)
    medians = {kind: median(runs) for kind, runs in seconds.items()}
    return {
        "length": length, "new_tokens": new_tokens,
        **{
            kind: {"seconds": taken, "tokens_per_second": new_tokens / taken, "runs": len(seconds[kind])}
            for kind, taken in medians.items()
        },
        "speedup": medians["uncached"] / medians["cached"],
        "first_token_seconds": median(timed(model, most_of_it, 1, True)[1] for _ in range(options.repeats)),
        "cache_bytes": cache.capacity_bytes, "same_text": all(text == texts[0] for text in texts),
    }  # fmt: skip


def timed(model: DecoderOnlyTransformer, prompt: Tensor, new_tokens: int, use_cache: bool) -> tuple[list[int], float]:
    """Continues prompt (1, P) greedily; returns the ids and the seconds."""
    started = time.perf_counter()
    ids = model.generate(prompt, max_new_tokens=new_tokens, use_cache=use_cache)[0].tolist()  # waits for the device
    return ids, time.perf_counter() - started


def table(rows: Sequence[dict[str, Any]]) -> Table:
    headings = ("tokens", "with cache", "without", "speed-up", "first token", "cache", "text")
    columns = [Column(heading, justify="right") for heading in headings]
    caption = "first token: after a prompt of that length"
    shown = Table(*columns, title="tokens per second", title_justify="left", caption=caption)
    for row in rows:
        speeds = (f"{row[kind]['tokens_per_second']:,.0f}/s" for kind in ("cached", "uncached"))
        first, size = f"{row['first_token_seconds'] * 1e3:.1f} ms", f"{row['cache_bytes'] / 1024:,.1f} KiB"
        same = "same" if row["same_text"] else "DIFFERENT"
        shown.add_row(f"{row['length']:,}", *speeds, f"{row['speedup']:.2f}x", first, size, same)
    return shown


def plot(rows: Sequence[dict[str, Any]], title: str) -> Figure:
    """Returns a picture of tokens per second against length."""
    figure = Figure(figsize=(6, 4.4), layout="constrained")
    axes = figure.subplots()
    for kind, name in (("cached", "with the cache"), ("uncached", "without the cache")):
        axes.plot([row["length"] for row in rows], [row[kind]["tokens_per_second"] for row in rows], "o-", label=name)
    axes.set(xscale="log", ylim=(0, None), xlabel="length of the text (tokens)", ylabel="tokens per second")
    axes.set_title(title, fontsize=8)
    axes.legend(frameon=False)
    return figure


def open_or_make_model(options: BenchmarkOptions) -> tuple[DecoderOnlyTransformer, str]:
    """Returns the model to measure, in eval mode, and one line that describes it."""
    weights = weight_format(options.weights, options.int8)
    is_fresh = options.preset is not None or options.max_seq_len is not None
    if options.checkpoint and is_fresh:
        raise ValueError("--preset and --max-seq-len make a fresh model: leave them out to measure a --checkpoint")
    if not is_fresh and (options.checkpoint or epochs(Path()) or folders(Path())):
        loaded = open_model(options.checkpoint, options.device, weights, options.kernels)
        return loaded.model, loaded.description
    name = options.preset or "default"
    config = preset_named(name).model
    if options.max_seq_len is not None:
        config = replace(config, max_seq_len=options.max_seq_len)
    torch.manual_seed(1)
    model = DecoderOnlyTransformer(config)
    millions = sum(model.parameter_counts().values()) / 1e6
    accelerate(model.to(pick_device(options.device)).eval(), options.kernels)
    round_weights(model, weights)
    kind = "" if weights == "float32" else f" in {weights}"
    return model, f"fresh model with random weights (preset {name}, {millions:.1f}M parameters{kind})"


def pick_lengths(options: BenchmarkOptions, limit: int) -> list[int]:
    """Returns the lengths to measure, shortest first. Raises ValueError for a length that exceeds the context."""
    prompt = options.prompt_tokens
    if options.repeats < 1 or prompt < 1:
        raise ValueError("repeats and prompt_tokens must be at least 1")
    if not options.max_seconds >= 0:
        raise ValueError(f"max_seconds={options.max_seconds} must not be below 0")
    shortest = min(max(10, prompt + 1), limit)
    usual = [round(shortest * (limit / shortest) ** (step / 7)) for step in range(8)]
    lengths = sorted(set(options.lengths or usual))
    for length in (lengths[0], lengths[-1]):
        if not prompt < length <= limit:
            wanted = f"above prompt_tokens={prompt} and at most max_seq_len={limit}"
            raise ValueError(f"length {length} must be {wanted}; --max-seq-len gives a fresh model a longer context")
    return lengths
