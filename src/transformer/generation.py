r"""Generation: writing, one token after another.

**The problem.** A language model predicts one token. To write, its choice is appended to the text and the model is
asked again. Done naively each step reads the whole text anew; and a model has a longest context, while a text may
go on.

**The idea.** One loop, used by every command and by model.generate():

    prefill     logits = model(prompt)             the prompt, once; fills the cache
    repeat      token  = choose(logits)            sampling.py
                yield token                        so that a reader sees it at once
                logits = model(token)              one token; the cache knows the rest

With the cache (kv_cache.py) a step costs one token's work; without, all of it again. The results are the same: the
cache only remembers what would be computed anyway.

>>> from transformer.config import ModelConfig
>>> class Counter:                                             # "the next token is the last one plus one"
...     config, training = ModelConfig(vocab_size=10, max_seq_len=4), False
...     def next_logits(self, tokens, cache=None):
...         return torch.nn.functional.one_hot((tokens[:, -1] + 1) % 10, 10).float()
...     def train(self, mode=True): ...
>>> generate(Counter(), torch.tensor([[3, 4]]), 4, SamplingConfig(), use_cache=False).tolist()
[[3, 4, 5, 6, 7, 8]]
>>> generate(Counter(), torch.tensor([[3, 4], [5, 6]]), 4, SamplingConfig(), stop_ids=[7], use_cache=False).tolist()
[[3, 4, 5, 6, 7], [5, 6, 7, 7, 7]]

**At the context limit** (L = max_seq_len) the window slides. The model sees the text from a start that stays put until
the window is full, then jumps ahead by half a window:

    text       0 1 2 3 4 5 6 7 8 9        L = 4
    window     [0 1 2 3]                   full: the next token does not fit
                   [2 3 4 5]               start jumps to 2, two tokens are left as context and re-read
                       [4 5 6 7]

The jump is by half, not by one: every position in the window changes, so the cache must be filled again, and that is
paid once per L/2 tokens instead of at every token. The start depends on the length of the text alone, so that text
with and without cache stays the same. Prompts longer than L are cut by the same rule.

**Stopping.** A row is done when it draws one of stop_ids, end-of-text usually; the stop id is part of the output. In a
batch, rows that are done repeat their stop id until all are.
**What is put back.** Dropout is off while generating, and the model's train or eval mode is restored afterwards, also
when the reader stops early. No gradients are recorded.
**Cost.** Prefill: the prompt's tokens in one pass. Then a pass of one token each, limited by the speed of memory: all
weights are read for a single token. `main.py benchmark` measures it.
**Is it working?** Greedy output with and without cache is equal; the same generator state gives the same text.

Read before: sampling.py, kv_cache.py. Next: perplexity.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from transformer.config import ModelConfig, SamplingConfig
from transformer.kv_cache import KVCache
from transformer.sampling import choose


class LanguageModel(Protocol):
    """All that generation knows of a model."""

    config: ModelConfig
    training: bool

    def next_logits(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """tokens (B, T) int64, which continue the cache -> logits of the token after the last, (B, V)."""

    def train(self, mode: bool = True) -> object:
        """Switches dropout on or off."""


def window_start(length: int, limit: int) -> int:
    """Returns where the window begins when a text has `length` tokens and the model reads `limit` at most.

    >>> [window_start(length, 4) for length in range(1, 10)]
    [0, 0, 0, 0, 2, 2, 4, 4, 6]
    """
    hop = max(1, limit // 2)
    beyond = max(0, length - limit)
    return -(-beyond // hop) * hop  # rounded up to whole hops


def stream_tokens(
    model: LanguageModel,
    prompt: Tensor,
    sampling: SamplingConfig,
    max_new_tokens: int,
    stop_ids: Iterable[int] = (),
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yields the next token of every row, (B,) int64, up to max_new_tokens times or until all rows are done.

    prompt (B, T) int64 with T at least 1: start an empty text from end-of-text. Raises ValueError otherwise, and
    ConfigError for impossible sampling settings. `generator` must live on the model's device.
    """
    if prompt.ndim != 2 or prompt.shape[1] == 0:
        raise ValueError(f"the prompt has shape {tuple(prompt.shape)}, not (batch, tokens) with at least one token")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} must not be below 0")
    sampling.check()
    return _stream(model, prompt, sampling, max_new_tokens, stop_ids, use_cache, generator)


def _stream(
    model: LanguageModel,
    prompt: Tensor,
    sampling: SamplingConfig,
    max_new_tokens: int,
    stop_ids: Iterable[int],
    use_cache: bool,
    generator: torch.Generator | None,
) -> Iterator[Tensor]:
    stops = torch.tensor(sorted(stop_ids), dtype=torch.int64, device=prompt.device)
    done = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
    last = prompt[:, -1]
    context = _Context(model, prompt, max_new_tokens, use_cache)
    for _ in range(max_new_tokens):
        with torch.no_grad(), evaluating(model):
            token = choose(context.next_logits(), sampling, generator)  # (B,)
        token = torch.where(done, last, token)  # a finished row repeats its stop id
        yield token
        done = done | torch.isin(token, stops)
        if len(stops) and bool(done.all()):
            return
        context.append(token)
        last = token


def generate(
    model: LanguageModel,
    prompt: Tensor,
    max_new_tokens: int,
    sampling: SamplingConfig,
    stop_ids: Iterable[int] = (),
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Returns the prompt and what stream_tokens writes after it: (B, T) -> (B, T + at most max_new_tokens)."""
    new = list(stream_tokens(model, prompt, sampling, max_new_tokens, stop_ids, use_cache, generator))
    return torch.cat([prompt, *(token[:, None] for token in new)], dim=1)


class evaluating:  # noqa: N801 (reads as a word: `with evaluating(model):`)
    """Dropout off inside the block; the mode that the model was in comes back after it."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    def __enter__(self) -> None:
        self.was_training = self.model.training
        if self.was_training:
            self.model.train(False)

    def __exit__(self, *exception: object) -> None:
        if self.was_training:
            self.model.train(True)


class _Context:
    """The text so far, and which of its tokens the model must still read."""

    def __init__(self, model: LanguageModel, prompt: Tensor, max_new_tokens: int, use_cache: bool) -> None:
        batch, length = prompt.shape
        self.model, self.limit = model, model.config.max_seq_len
        self.text = prompt.new_empty(batch, length + max_new_tokens)
        self.text[:, :length] = prompt
        self.length, self.start = length, 0
        self.cache: KVCache | None = None
        if use_cache:
            longest = min(self.limit, length + max_new_tokens)
            weight = next(iter(model.parameters())) if isinstance(model, torch.nn.Module) else torch.empty(0)
            self.cache = KVCache.allocate(model.config, batch, longest, weight.device, weight.dtype)

    def append(self, token: Tensor) -> None:
        """Adds token (B,) to the text."""
        self.text[:, self.length] = token
        self.length += 1

    def next_logits(self) -> Tensor:
        """Returns the logits (B, V) of the token after the text, reading no more than is needed."""
        start = window_start(self.length, self.limit)
        read = start
        if self.cache is not None:
            if start != self.start:
                self.cache.truncate(0)
            read += self.cache.length
        self.start = start
        return self.model.next_logits(self.text[:, read : self.length], self.cache)
