"""The benchmark command; commands/benchmark_generation.py documents it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from transformer import DecoderOnlyTransformer
from transformer.cli.benchmark.growth import growths
from transformer.cli.benchmark.report import memory, save, summary, table
from transformer.cli.benchmark.speed import Comparison, compare
from transformer.cli.console import console
from transformer.cli.models import open_model
from transformer.cli.options import parse
from transformer.config import PRESETS, near_miss
from transformer.kernels.int8 import quantise
from transformer.training.checkpoint import epochs, folders
from transformer.training.device import pick_device


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
    """Tokens in each text, prompt included; none given: eight from 10 to the context, each as many times the last."""
    prompt_tokens: int = 1
    """Tokens in the prompt; many bend the exponents, for they are read at once."""
    repeats: int = 3
    """Counted runs with and without the cache at each length."""
    max_seconds: float = 30.0
    """Runs of one kind at one length that would take longer than this in all are repeated less often."""
    out: Path = Path("runs/benchmark_generation")
    """Where results.json, speed.png and speed.svg go."""
    int8: bool = False
    """Rounds the weights to bytes first."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


def main(arguments: Sequence[str]) -> None:
    options = parse(BenchmarkOptions, arguments, "benchmark")
    model, about = open_or_make_model(options)
    lengths = pick_lengths(options, model.config.max_seq_len)
    device, threads = model.device, torch.get_num_threads()
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    out = console()
    machine = f"{where}, {threads} CPU thread{'s' * (threads > 1)}, torch {torch.__version__}"
    out.print(f"{about}\n{machine}", style="dim")
    results = measure(model, lengths, options, out)
    fits = growths(results)
    setting = {
        "command": shlex.join(["main.py", "benchmark", *arguments]),
        "model": about,
        "config": model.config.to_dict(),
        "device": where,
        "threads": threads,
        "torch": torch.__version__,
        "prompt_tokens": options.prompt_tokens,
        "repeats": options.repeats,
        "max_seconds": options.max_seconds,
        "growth": {kind: fit and asdict(fit) for kind, fit in fits.items()},
    }
    written = save(options.out, setting, results, f"{about}; {machine}")
    out.print(table(results, options.prompt_tokens))
    for line in [*summary(results, fits, options.repeats), memory(model, results[-1]), f"written: {written}"]:
        out.print(line)
    for result in results:
        if result.first_difference is not None:
            place = f"at length {result.length}, from token {result.first_difference} on"
            raise ValueError(f"THE CACHE CHANGED THE OUTPUT {place}: a bug, or two tokens equal to rounding")
    out.print("The texts with and without the cache are the same, token for token, at every length.")


def measure(
    model: DecoderOnlyTransformer, lengths: Sequence[int], options: BenchmarkOptions, out: Console
) -> list[Comparison]:
    """Measures all lengths, and says meanwhile how far it is; work is counted as without the cache, by the square."""
    columns = BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    results = []
    with Progress(*columns, console=out, transient=True, refresh_per_second=2, disable=not out.is_terminal) as progress:
        task = progress.add_task("", total=sum(length**2 for length in lengths))
        for length in lengths:
            results.append(
                compare(
                    model, length, options.prompt_tokens, options.repeats, options.max_seconds,
                    tell=lambda doing: progress.update(task, description=doing),
                )
            )  # fmt: skip
            progress.advance(task, length**2)
    return results


def open_or_make_model(options: BenchmarkOptions) -> tuple[DecoderOnlyTransformer, str]:
    """Returns the model to measure, in eval mode, and a line that says which it is."""
    fresh = options.preset is not None or options.max_seq_len is not None
    if options.checkpoint and fresh:
        raise ValueError("--preset and --max-seq-len make a fresh model: leave them out to measure a --checkpoint")
    if not fresh and (options.checkpoint or epochs(Path()) or folders(Path())):
        loaded = open_model(options.checkpoint, options.device, options.int8)
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
    if options.int8:
        quantise(model)
    kind = " in int8" if options.int8 else ""
    return model, f"fresh model with random weights (preset {name}, {millions:.1f}M parameters{kind})"


def pick_lengths(options: BenchmarkOptions, limit: int) -> list[int]:
    """Returns the lengths to measure, shortest first. Raises ValueError for one that the context cannot hold."""
    if options.repeats < 1 or options.prompt_tokens < 1:
        raise ValueError("repeats and prompt_tokens must be at least 1")
    if not options.max_seconds >= 0:
        raise ValueError(f"max_seconds={options.max_seconds} must not be below 0")
    shortest = min(max(10, options.prompt_tokens + 1), limit)
    usual = [round(shortest * (limit / shortest) ** (step / 7)) for step in range(8)]
    lengths = sorted(set(options.lengths or usual))
    for length in lengths:
        if not options.prompt_tokens < length <= limit:
            wanted = f"above prompt_tokens={options.prompt_tokens} and at most max_seq_len={limit}"
            raise ValueError(f"length {length} must be {wanted}; --max-seq-len gives a fresh model a longer context")
    return lengths
