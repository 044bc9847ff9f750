"""The measuring behind `main.py benchmark`: a text written with and without the cache, and a picture of the speeds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from matplotlib.figure import Figure
from torch import Tensor

from transformer import DecoderOnlyTransformer, KVCache, ModelConfig, SamplingConfig
from transformer.generation import stream_tokens


@dataclass(frozen=True)
class Speed:
    """Medians over the runs, in seconds, and what they mean in tokens."""

    seconds: float
    first_token_seconds: float
    tokens_per_second: float
    spread: float
    """How far the runs lie apart: (slowest - fastest) / median. Above 0.2 something else kept the machine busy."""


@dataclass(frozen=True)
class Comparison:
    """What was measured at one length of text, in tokens, prompt included."""

    length: int
    new_tokens: int
    cached: Speed
    uncached: Speed
    cache_bytes: int
    first_difference: int | None
    """Place of the first token that is not the same in every run; None, as it should be, where all texts are equal."""

    @property
    def speedup(self) -> float:
        """How many times as fast the cache makes the whole text."""
        return self.uncached.seconds / self.cached.seconds


@dataclass(frozen=True)
class Run:
    """One text: its new ids, and the seconds to the first of them and to the last."""

    ids: list[int]
    first_token_seconds: float
    seconds: float


def compare(model: DecoderOnlyTransformer, length: int, prompt_tokens: int, repeats: int) -> Comparison:
    """Writes a text of `length` tokens greedily, with and without the cache in turns, after one uncounted run each.

    The prompt is drawn at random, always the same one. `length` is above prompt_tokens and within the context.
    """
    weight, config = model.head.weight, model.config
    prompt = torch.randint(config.vocab_size, (1, prompt_tokens), generator=torch.Generator().manual_seed(1))
    new_tokens = length - prompt_tokens
    runs: dict[bool, list[Run]] = {True: [], False: []}
    for _ in range(repeats + 1):
        for use_cache in runs:
            runs[use_cache].append(write(model, prompt.to(weight.device), new_tokens, use_cache))
    cache = KVCache.allocate(config, 1, length, weight.device, weight.dtype)  # as generation allocates it
    return Comparison(
        length,
        new_tokens,
        speed(runs[True][1:], new_tokens),
        speed(runs[False][1:], new_tokens),
        cache.capacity_bytes,
        first_difference([run.ids for run in runs[True] + runs[False]], prompt_tokens),
    )


def write(model: DecoderOnlyTransformer, prompt: Tensor, new_tokens: int, use_cache: bool) -> Run:
    """Continues prompt (1, P) greedily by new_tokens."""
    ids: list[int] = []
    first = 0.0
    started = time.perf_counter()
    for token in stream_tokens(model, prompt, SamplingConfig("greedy"), new_tokens, use_cache=use_cache):
        ids.append(int(token))  # waits for the device, as a reader of the text would
        first = first or time.perf_counter() - started
    return Run(ids, first, time.perf_counter() - started)


def speed(runs: Sequence[Run], new_tokens: int) -> Speed:
    """Returns the medians of several runs."""
    seconds = [run.seconds for run in runs]
    middle = median(seconds)
    first = median(run.first_token_seconds for run in runs)
    return Speed(middle, first, new_tokens / middle, (max(seconds) - min(seconds)) / middle)


def first_difference(texts: Sequence[Sequence[int]], start: int = 0) -> int | None:
    """Returns the first place, counted from `start`, where the texts are not all the same; None where they are.

    >>> first_difference([[1, 2, 3], [1, 2, 3]]), first_difference([[1, 2, 3], [1, 5, 3]], start=8)
    (None, 9)
    """
    places = enumerate(zip(*texts, strict=True), start)
    return next((place for place, ids in places if len(set(ids)) > 1), None)


def formula_bytes(config: ModelConfig, length: int, number_bytes: int) -> int:
    """Returns the size of the cache of one text: layers * 2 * heads * seq_len * d_k * bytes per number."""
    return config.num_layers * 2 * config.kv_heads * length * config.head_dim * number_bytes


def plot(results: Sequence[Comparison], title: str) -> Figure:
    """Returns a picture of tokens per second against length, with and without the cache."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    lengths = [result.length for result in results]
    axes.plot(lengths, [result.cached.tokens_per_second for result in results], "o-", label="with the cache")
    axes.plot(lengths, [result.uncached.tokens_per_second for result in results], "s--", label="without")
    axes.set(xlabel="length of the text (tokens)", ylabel="tokens per second", ylim=(0, None))
    axes.set_xticks(lengths)
    axes.set_title(title, fontsize=9)
    axes.legend()
    return figure
