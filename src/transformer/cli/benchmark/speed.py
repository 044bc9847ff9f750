"""The measuring behind `main.py benchmark`: texts written with and without the cache."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from transformer import DecoderOnlyTransformer, ModelConfig, SamplingConfig
from transformer.generation import stream_tokens

WARM_UP_TOKENS = 8
"""New tokens of the uncounted text before the counted ones."""


@dataclass(frozen=True)
class Speed:
    """Medians over the runs, in seconds, and what they mean in tokens."""

    seconds: float
    tokens_per_second: float
    spread: float
    """How far the runs lie apart: (slowest - fastest) / median. Above 0.2 something else kept the machine busy."""
    runs: int


@dataclass(frozen=True)
class Comparison:
    """What was measured at one length of text, in tokens, prompt included."""

    length: int
    new_tokens: int
    cached: Speed
    uncached: Speed
    first_token_seconds: float
    """Median time from a prompt of `length` tokens to the token after it."""
    cache_bytes: int
    """Bytes of the keys and values that these tokens left in the cache."""
    formula_bytes: int
    """What they should be: layers * 2 * heads * seq_len * d_k * bytes per number."""
    first_difference: int | None
    """Place of the first token that is not the same in every run; None, as it should be, where all texts are equal."""

    @property
    def speedup(self) -> float:
        """How many times as fast the cache makes the whole text."""
        return self.uncached.seconds / self.cached.seconds


@dataclass(frozen=True)
class Run:
    """One text: its new ids, and the seconds to the last of them."""

    ids: list[int]
    seconds: float


def compare(
    model: DecoderOnlyTransformer,
    length: int,
    prompt_tokens: int,
    repeats: int,
    max_seconds: float = math.inf,
    tell: Callable[[str], object] = lambda doing: None,
) -> Comparison:
    """Writes a text of `length` tokens greedily, with and without the cache in turns; tells what it is doing.

    The prompt is drawn at random, always the same one. `length` is above prompt_tokens and within the context. A kind
    of run of which one more would exceed max_seconds in all is not repeated further.
    """
    new_tokens = length - prompt_tokens
    prompt = random_tokens(model, prompt_tokens)
    runs: dict[bool, list[Run]] = {True: [], False: []}
    for use_cache in runs:
        write(model, prompt, min(new_tokens, WARM_UP_TOKENS), use_cache)
    for number in range(1, repeats + 1):
        for use_cache, done in runs.items():
            if done and sum(run.seconds for run in done) + done[-1].seconds > max_seconds:
                continue
            tell(f"{length:,} tokens {'with' if use_cache else 'without'} the cache, run {number} of {repeats}")
            done.append(write(model, prompt, new_tokens, use_cache))
    first_token_seconds, cache_bytes = fill_cache(model, length, repeats)
    return Comparison(
        length,
        new_tokens,
        speed(runs[True], new_tokens),
        speed(runs[False], new_tokens),
        first_token_seconds,
        cache_bytes,
        formula_bytes(model.config, length, model.embeddings.token.weight.element_size()),
        first_difference([run.ids for run in runs[True] + runs[False]], prompt_tokens),
    )


def random_tokens(model: DecoderOnlyTransformer, length: int) -> Tensor:
    """Returns (1, length) ids on the model's device, always the same."""
    drawn = torch.randint(model.config.vocab_size, (1, length), generator=torch.Generator().manual_seed(1))
    return drawn.to(model.device)


def write(model: DecoderOnlyTransformer, prompt: Tensor, new_tokens: int, use_cache: bool) -> Run:
    """Continues prompt (1, P) greedily by new_tokens."""
    started = time.perf_counter()
    # int() waits for the device, as a reader of the text would.
    stream = stream_tokens(model, prompt, SamplingConfig("greedy"), new_tokens, use_cache=use_cache)
    ids = [int(token) for token in stream]
    return Run(ids, time.perf_counter() - started)


@torch.no_grad()
def fill_cache(model: DecoderOnlyTransformer, length: int, repeats: int) -> tuple[float, int]:
    """Reads a prompt of `length` tokens; returns the median seconds to the next token, and the bytes of the cache."""
    prompt = random_tokens(model, length)
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        cache = model.allocate_cache(1, length)  # as generation does
        int(model.next_logits(prompt, cache).argmax())
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:]), cache.nbytes


def speed(runs: Sequence[Run], new_tokens: int) -> Speed:
    """Returns the medians of several runs."""
    seconds = [run.seconds for run in runs]
    middle = median(seconds)
    return Speed(middle, new_tokens / middle, (max(seconds) - min(seconds)) / middle, len(runs))


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
