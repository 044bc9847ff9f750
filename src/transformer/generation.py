r"""Generation: continuing a text, one token after another.

**The problem.** A language model predicts one token. To generate text, the predicted token is appended and the model
predicts again. Two questions are left: how not to compute the whole text again for every token, and what to do when the
text grows longer than the model's context.

**The idea.** One loop:

    repeat      logits = model(text)[:, -1]           predictions for the position after the last token
                token  = sample(logits)               sampling.py
                text   = text + token

With a cache (kv_cache.py, the next file) the model processes only the tokens that it has not seen yet: the prompt in
the first pass (*prefill*), then one token a pass (*decode*). The cache changes the speed, never the output.

>>> class Counter:                                             # "the next token is the last one plus one"
...     config, training = ModelConfig(vocab_size=10, max_seq_len=4), False
...     def next_logits(self, tokens, cache=None):
...         return torch.nn.functional.one_hot((tokens[:, -1] + 1) % 10, 10).float()
>>> generate(Counter(), torch.tensor([[3, 4]]), 4, SamplingConfig(), use_cache=False).tolist()
[[3, 4, 5, 6, 7, 8]]

**Stopping.** A row is finished when it draws one of stop_ids, usually end-of-text; the stop id is part of the output.
In a batch, a finished row repeats its last id until all rows are finished:

>>> generate(Counter(), torch.tensor([[3, 4], [5, 6]]), 4, SamplingConfig(), stop_ids=[7], use_cache=False).tolist()
[[3, 4, 5, 6, 7], [5, 6, 7, 7, 7]]

**At the context limit** the model processes a window of at most L = max_seq_len tokens. The start of the window stays
until the window is full, then moves ahead by half of L:

    text       0 1 2 3 4 5 6 7 8 9        L = 4
    window     [0 1 2 3]                   full: the next token does not fit
                   [2 3 4 5]               the start moves to 2; tokens 2 and 3 are processed again
                       [4 5 6 7]

Moving by one token would change every position in the window at every step, so the cache would have to be filled again
for every token. Moving by half does that once per L/2 tokens. The start depends on the length of the text alone, so
generation with and without the cache sees the same window.

**Cost.** One pass for the prompt, then one pass a token, each limited by memory bandwidth: all weights are read to
process a single token. `main.py benchmark` measures it.
**Not here.** Prompts of unequal length, a generator for each row, and tokens as they come: inference/batch.py.
**Is it working?** Greedy output with and without the cache is identical, except where two logits are equal up to
rounding; the same generator state gives the same text.

Read before: sampling.py. Next: kv_cache.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from transformer.config import ModelConfig, SamplingConfig
from transformer.kv_cache import KVCache
from transformer.sampling import FILTERS, Filters, sample


class LanguageModel(Protocol):
    """The part of a model that generation uses."""

    config: ModelConfig

    @property
    def training(self) -> bool:
        """Whether dropout is on."""

    def next_logits(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """tokens (B, T) int64, which continue the cache -> logits of the token after the last, (B, V)."""

    def allocate_cache(self, batch_size: int, max_len: int) -> KVCache:
        """Returns an empty cache that holds at least max_len tokens a row."""

    def train(self, mode: bool = True) -> object:
        """Switches dropout on or off."""


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompt: Tensor,
    max_new_tokens: int,
    sampling: SamplingConfig,
    stop_ids: Iterable[int] = (),
    use_cache: bool = True,
    generator: torch.Generator | None = None,
    filters: Filters = FILTERS,
) -> Tensor:
    """Continues each row of prompt (B, T) int64; returns (B, T + n) ids, prompt included, n at most max_new_tokens.

    Raises ValueError for a prompt without tokens, and ConfigError for impossible sampling settings.
    """
    check_arguments(prompt, max_new_tokens, sampling)
    limit = model.config.max_seq_len
    cache = None
    if use_cache:
        cache = model.allocate_cache(len(prompt), min(limit, prompt.shape[1] + max_new_tokens))
    stops = torch.tensor(list(stop_ids), dtype=torch.int64, device=prompt.device)
    finished = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)  # (B,)
    text, start = prompt, 0
    with eval_mode(model):
        for _ in range(max_new_tokens):
            if text.shape[1] - start > limit:  # the window is full: move it, and so change every position in it
                start = window_start(text.shape[1], limit)
                if cache is not None:
                    cache.truncate(0)
            unseen = text[:, start:] if cache is None else text[:, start + cache.length :]
            logits = model.next_logits(unseen, cache)  # (B, V)
            token = sample(logits, sampling, generator, text, filters)  # (B,)
            token = torch.where(finished, text[:, -1], token)  # a finished row repeats its last id
            text = torch.cat([text, token[:, None]], dim=1)  # (B, T + 1), the longer T of the next step
            finished |= torch.isin(token, stops)
            if len(stops) and bool(finished.all()):  # without stop ids, do not wait for the device
                break
    return text


def window_start(length: int, limit: int) -> int:
    """Returns the start of the window if a text has `length` tokens and the model processes at most `limit`.

    >>> [window_start(length, 4) for length in range(1, 10)]
    [0, 0, 0, 0, 2, 2, 4, 4, 6]
    """
    hop = max(1, limit // 2)
    excess = max(0, length - limit)
    return -(-excess // hop) * hop  # rounded up to whole hops


def check_arguments(prompt: Tensor, max_new_tokens: int, sampling: SamplingConfig) -> None:
    """Raises ValueError or ConfigError for arguments with which nothing can be generated."""
    if prompt.ndim != 2 or prompt.shape[1] == 0:
        raise ValueError(
            f"the prompt has shape {tuple(prompt.shape)}, not (batch, tokens) with at least one token: "
            "start an empty text from end-of-text"
        )
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} is below 0")
    sampling.check()


@contextmanager
def eval_mode(model: LanguageModel) -> Iterator[None]:
    """Switches dropout off inside the block, and restores the model's mode after it, also after an error."""
    was_training = model.training
    if was_training:
        model.train(False)
    try:
        yield
    finally:
        if was_training:
            model.train(True)
