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
...     def next_logits(self, tokens, cache=None, padding=None):
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

**Several texts at once.** A pass reads all weights whether one row asks or eight, so a batch costs little more than a
text. Rows of unequal length are padded on the left, so that every row's next token stands in the same column:

    text       . . 5 6 |        padding 2: nobody sees the filler, and positions count from the row's own first token
               7 8 9 3 |        padding 0

Each row is as if alone: its window slides by its own length, and given one generator a row it draws its own numbers.
When any row's window jumps, all rows are read again.

>>> tokens, padding = pad([[5, 6], [7, 8, 9, 3]])
>>> tokens.tolist(), padding.tolist()
([[5, 5, 5, 6], [7, 8, 9, 3]], [2, 0])

**Stopping.** A row is done when it draws one of stop_ids, end-of-text usually; the stop id is part of the output. In a
batch, rows that are done repeat their last id until all are. writing.py stops at strings, which may span tokens.
**What is put back.** Dropout is off while generating, and the model's train or eval mode is restored afterwards, also
when the reader stops early. No gradients are recorded.
**Cost.** Prefill: the prompt's tokens in one pass. Then a pass of one token each, limited by the speed of memory: all
weights are read for a single token. `main.py benchmark` measures it.
**Is it working?** Greedy output with and without cache is equal, but where two logits are equal to rounding; the same
generator state gives the same text.

Read before: sampling.py, kv_cache.py. Next: perplexity.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from transformer.config import ModelConfig, SamplingConfig
from transformer.kv_cache import KVCache
from transformer.sampling import Generators, choose


class LanguageModel(Protocol):
    """All that generation knows of a model."""

    config: ModelConfig

    @property
    def training(self) -> bool:
        """Whether dropout is on."""

    @property
    def device(self) -> torch.device:
        """Where tokens must be."""

    def next_logits(self, tokens: Tensor, cache: KVCache | None = None, padding: Tensor | None = None) -> Tensor:
        """tokens (B, T) int64, which continue the cache -> logits of the token after the last, (B, V).

        padding (B,) int64: how many tokens at the left of each row, cached ones included, are filler.
        """

    def allocate_cache(self, batch_size: int, max_len: int) -> KVCache:
        """Returns an empty cache for the model, with room for max_len tokens a row at least."""

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


def pad(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Returns prompts of unequal length as tokens (B, T) int64, filled up on the left, and padding (B,) int64.

    Raises ValueError where there is no prompt, or one without a token.
    """
    if not prompts or not all(prompts):
        raise ValueError("give at least one prompt, and each at least one token: start an empty text from end-of-text")
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    # The filler is a token of the row itself, so that repetition_penalty finds nothing else there.
    rows = [[prompt[0]] * fill + list(prompt) for prompt, fill in zip(prompts, padding, strict=True)]
    return torch.tensor(rows), torch.tensor(padding)


def stream_tokens(
    model: LanguageModel,
    prompt: Tensor,
    sampling: SamplingConfig,
    max_new_tokens: int,
    stop_ids: Iterable[int] = (),
    use_cache: bool = True,
    generator: Generators = None,
    padding: Tensor | None = None,
    ended: Callable[[], Tensor] | None = None,
) -> Iterator[Tensor]:
    """Yields the next token of every row, (B,) int64, up to max_new_tokens times or until all rows are done.

    prompt (B, T) int64 with T at least 1: start an empty text from end-of-text. `padding` (B,) int64 as pad() returns
    it, None where all rows are equally long. `ended` is asked after each token which rows, (B,) bool, are done for
    reasons of the caller's. Raises ValueError for another shape, and ConfigError for impossible sampling settings.
    """
    if prompt.ndim != 2 or prompt.shape[1] == 0:
        raise ValueError(f"the prompt has shape {tuple(prompt.shape)}, not (batch, tokens) with at least one token")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} must not be below 0")
    filler = [0] * len(prompt) if padding is None else [int(count) for count in padding]
    if len(filler) != len(prompt) or not all(0 <= count < prompt.shape[1] for count in filler):
        raise ValueError(f"padding={filler} does not leave a token in each of {len(prompt)} rows of {prompt.shape[1]}")
    sampling.check()
    return _stream(model, prompt, filler, sampling, max_new_tokens, stop_ids, use_cache, generator, ended)


def _stream(
    model: LanguageModel,
    prompt: Tensor,
    filler: list[int],
    sampling: SamplingConfig,
    max_new_tokens: int,
    stop_ids: Iterable[int],
    use_cache: bool,
    generator: Generators,
    ended: Callable[[], Tensor] | None,
) -> Iterator[Tensor]:
    stops = torch.tensor(sorted(stop_ids), dtype=torch.int64, device=prompt.device)
    done = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
    can_end = len(stops) > 0 or ended is not None
    last = prompt[:, -1]
    context = _Context(model, prompt, filler, max_new_tokens, use_cache)
    for _ in range(max_new_tokens):
        with torch.no_grad(), evaluating(model):
            token = choose(context.next_logits(), sampling, generator, context.so_far)  # (B,)
        token = torch.where(done, last, token)  # a finished row repeats its last id
        yield token
        done = done | torch.isin(token, stops)
        if ended is not None:
            done = done | ended().to(done.device)
        if can_end and bool(done.all()):
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
    generator: Generators = None,
    padding: Tensor | None = None,
) -> Tensor:
    """Returns the prompt and what stream_tokens writes after it: (B, T) -> (B, T + at most max_new_tokens)."""
    new = list(stream_tokens(model, prompt, sampling, max_new_tokens, stop_ids, use_cache, generator, padding))
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
    """The texts so far, and which of their tokens the model must still read."""

    def __init__(
        self, model: LanguageModel, prompt: Tensor, filler: list[int], max_new_tokens: int, use_cache: bool
    ) -> None:
        batch, length = prompt.shape
        self.model, self.limit = model, model.config.max_seq_len
        self.filler = filler
        self.text = prompt.new_empty(batch, length + max_new_tokens)
        self.text[:, :length] = prompt
        self.length = length
        self.starts: list[int] = []
        """The column at which each row's window begins."""
        self.padding: Tensor | None = None
        self.cache: KVCache | None = None
        if use_cache:
            longest = min(self.limit, length + max_new_tokens)
            self.cache = model.allocate_cache(batch, longest)

    @property
    def so_far(self) -> Tensor:
        """The texts, (B, length) int64."""
        return self.text[:, : self.length]

    def append(self, token: Tensor) -> None:
        """Adds token (B,) to the texts."""
        self.text[:, self.length] = token
        self.length += 1

    def next_logits(self) -> Tensor:
        """Returns the logits (B, V) of the token after each text, reading no more than is needed."""
        starts = [fill + window_start(self.length - fill, self.limit) for fill in self.filler]
        first = min(starts)
        if starts != self.starts:
            self.starts = starts
            ragged = [start - first for start in starts]
            self.padding = torch.tensor(ragged, device=self.text.device) if any(ragged) else None
            if self.cache is not None:
                self.cache.truncate(0)
        read = first + (self.cache.length if self.cache is not None else 0)
        return self.model.next_logits(self.text[:, read : self.length], self.cache, self.padding)
