"""Writes with a trained model: a prompt on the command line, or line by line in a conversation.

    uv run python main.py generate                                     the latest checkpoint, interactively
    uv run python main.py generate --prompt "The cat sat"              one text, as it is written
    uv run python main.py generate --checkpoint checkpoints/model_epoch_10_cl100k.pt --preset creative
    uv run python main.py generate --strategy top_k_top_p --top-k 50 --top-p 0.9 --temperature 0.8

A preset is a named set of sampling settings; flags given beside it change single settings. The model is used with the
encoding that it was trained with, without a flag.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from cli import console, flag_value, open_model, parse, run
from transformer.checkpoint import LoadedModel
from transformer.config import SAMPLING_PRESETS, ConfigError, SamplingConfig, near_miss, seed_problems
from transformer.generation import stream_tokens
from transformer.text import StreamDecoder


@dataclass(frozen=True)
class GenerateOptions:
    """Writes with a trained model. Without --prompt: interactively."""

    sampling: SamplingConfig = field(default_factory=lambda: SAMPLING_PRESETS["balanced"])
    prompt: str | None = None
    """The text to continue; "" starts a new text."""
    checkpoint: Path | None = None
    """Which checkpoint to use; best, or FOLDER/best: of the lowest validation loss. None: the latest."""
    preset: str = "balanced"
    """Named sampling settings: greedy, precise, balanced, creative or very-creative."""
    list_presets: bool = False
    """Prints the presets and their settings."""
    max_new_tokens: int = 200
    """Most tokens to write; the text may end before."""
    seed: int | None = None
    """Fixes the draws: the same seed gives the same text. None: a new one every time, which is printed."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


def main(arguments: Sequence[str]) -> None:
    options = read_options(arguments)
    problems = options.sampling.problems() + seed_problems(options.seed or 0)
    if options.max_new_tokens < 1:
        problems.append(f"max_new_tokens={options.max_new_tokens} must be at least 1")
    if problems:
        raise ConfigError(problems)
    if options.list_presets:
        for name, preset in SAMPLING_PRESETS.items():
            print(f"{name:<14} {describe(preset)}")
        return
    loaded = open_model(options.checkpoint, options.device)
    seed = options.seed if options.seed is not None else torch.seed() % 2**32
    out = console()
    out.print(f"{loaded.description}\n{describe(options.sampling)}, seed {seed}", style="dim")
    if options.prompt is not None:
        write(loaded, options, options.prompt, seed)
        return
    out.print("Type the beginning of a text and press Enter; an empty line or Ctrl-D ends.", style="dim")
    while prompt := read_line():
        write(loaded, options, prompt, seed)
        seed += 1


def read_options(arguments: Sequence[str]) -> GenerateOptions:
    """Reads the flags, with the preset's settings as their defaults."""
    preset = flag_value(arguments, "--preset", "balanced")
    if preset not in SAMPLING_PRESETS:
        known = ", ".join(SAMPLING_PRESETS)
        raise ValueError(f"there is no preset {preset!r}: one of {known}{near_miss(preset, SAMPLING_PRESETS)}")
    default = replace(GenerateOptions(), sampling=SAMPLING_PRESETS[preset], preset=preset)
    return parse(GenerateOptions, arguments, "generate", default)


def describe(sampling: SamplingConfig) -> str:
    """Returns the settings that matter to the strategy, in one line."""
    parts = [f"strategy {sampling.strategy}"]
    if sampling.strategy != "greedy":
        parts.append(f"temperature {sampling.temperature:g}")
    if "top_k" in sampling.strategy:
        parts.append(f"top_k {sampling.top_k}")
    if "top_p" in sampling.strategy:
        parts.append(f"top_p {sampling.top_p:g}")
    return ", ".join(parts)


def read_line() -> str:
    """Returns the line that was typed, empty at the end of the input."""
    try:
        return input("> ")
    except EOFError:
        return ""


def write(loaded: LoadedModel, options: GenerateOptions, prompt: str, seed: int) -> None:
    """Prints the prompt and what the model writes after it, piece by piece, then the speed."""
    tokenizer, model = loaded.tokenizer, loaded.model
    device = model.head.weight.device
    tokens = tokenizer.encode(prompt) or [tokenizer.eot_id]
    generator = torch.Generator(device).manual_seed(seed)
    decoder = StreamDecoder(tokenizer)
    print(prompt, end="", flush=True)
    started, written = time.perf_counter(), 0
    stream = stream_tokens(
        model,
        torch.tensor([tokens], device=device),
        options.sampling,
        options.max_new_tokens,
        stop_ids=[tokenizer.eot_id],
        generator=generator,
    )
    for token in stream:
        written += 1
        if int(token) != tokenizer.eot_id:
            print(decoder.push(int(token)), end="", flush=True)
    print(decoder.flush())
    seconds = time.perf_counter() - started
    print(f"{written} tokens, {written / seconds:.0f} tokens/s", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
