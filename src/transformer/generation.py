r"""Generation: continuing a text, one token after another.

**The problem.** A language model predicts one token. To generate text, the predicted token is appended and the model
predicts again. Two questions are left: how not to compute the whole text again for every token, and what to do when the
text grows longer than the model's context.

**The idea.** One loop:

    repeat      logits = model(text)[:, -1]           predictions for the position after the last token
                token  = sample(logits)               sampling.py
                text   = text + token

With a cache (kv_cache.py) the model processes only the tokens that it has not seen yet: the prompt in the first pass
(*prefill*), then one token per pass (*decode*). The cache changes the speed, and the output by rounding at most.

generate() accepts any object with config, training and next_logits() (LanguageModel in generation_inputs.py). A toy
model for which the next token is the last one plus one, with greedy sampling, the default:

>>> from transformer.config import ModelConfig
>>> class Counter:
...     config, training = ModelConfig(vocab_size=10, max_seq_len=4), False
...     def next_logits(self, tokens, cache=None):
...         return torch.nn.functional.one_hot((tokens[:, -1] + 1) % 10, 10).float()
>>> generate(Counter(), torch.tensor([[3, 4]]), 4, SamplingConfig(), use_cache=False).tolist()
[[3, 4, 5, 6, 7, 8]]

**Stopping.** A row is finished when it draws one of stop_ids, usually end-of-text; the stop id is part of the output.
In a batch, a finished row repeats its last id until all rows are finished:

>>> generate(Counter(), torch.tensor([[3, 4], [5, 6]]), 4, SamplingConfig(), stop_ids=[7], use_cache=False).tolist()
[[3, 4, 5, 6, 7], [5, 6, 7, 7, 7]]

**At the context limit** the model processes a window of at most max_seq_len tokens. The start of the window stays until
the window is full, then moves ahead by half of max_seq_len:

    text       0 1 2 3 4 5 6 7 8 9         max_seq_len = 4
    window    [0 1 2 3]                    full: the next token does not fit
                  [2 3 4 5]                the start moves to 2; tokens 2 and 3 are processed again, with 4
                      [4 5 6 7]

Moving by one token would renumber the window at every step; and with any kind of position, the cached keys and values
were computed from tokens that have left the window. So the cache would have to be filled again for every token. Moving
by half does that once per max_seq_len / 2 tokens. The price: right after a move the model sees only half of its
context.

**Cost.** One pass for the prompt, limited by computation; then one pass per token, limited by memory bandwidth: all
weights are read to process a single token. `main.py benchmark` measures it.
**Not here.** Prompts of unequal length, a generator for each row, and tokens as they come: inference/batch.py.
**Is it working?** Greedy output with and without the cache is identical, unless two logits are equal up to rounding;
the same generator state gives the same text.

Read before: sampling.py. Next: kv_cache.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from transformer.config import SamplingConfig
from transformer.generation_inputs import LanguageModel, check_arguments
from transformer.sampling import Filter, filter_logits, sample


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompt: Tensor,
    max_new_tokens: int,
    sampling: SamplingConfig,
    stop_ids: Iterable[int] = (),
    use_cache: bool = True,
    generator: torch.Generator | None = None,
    filter_with: Filter = filter_logits,
) -> Tensor:
    """Continues each row of prompt (B, T) int64; returns (B, T + n) ids, prompt included, n at most max_new_tokens.

    Errors are those of check_arguments().
    """
    check_arguments(model.config, prompt, max_new_tokens, sampling)
    limit = model.config.max_seq_len
    cache = model.allocate_cache(len(prompt), min(limit, prompt.shape[1] + max_new_tokens)) if use_cache else None
    stops = torch.tensor(list(stop_ids), dtype=torch.int64, device=prompt.device)
    finished = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)  # (B,)
    text, start = prompt, 0
    with eval_mode(model):
        for _ in range(max_new_tokens):
            if text.shape[1] - start > limit:  # the window is full: move it, and so change every position in it
                start = window_start(text.shape[1], limit)
                if cache is not None:
                    cache.truncate(0)  # forget all keys and values
            seen = 0 if cache is None else cache.length  # tokens of the window whose keys and values are cached
            logits = model.next_logits(text[:, start + seen :], cache)  # the tokens not seen yet -> (B, V)
            token = sample(logits, sampling, generator, text, filter_with)  # (B,)
            token = torch.where(finished, text[:, -1], token)  # a finished row repeats its last id
            text = torch.cat([text, token[:, None]], dim=1)  # (B, T + 1)
            finished |= torch.isin(token, stops)
            if bool(finished.all()):
                break
    return text


def window_start(length: int, limit: int) -> int:
    """Returns the start of the window if a text has `length` tokens and the model processes at most `limit`.

    >>> [window_start(length, 4) for length in range(1, 10)]
    [0, 0, 0, 0, 2, 2, 4, 4, 6]
    """
    half = max(1, limit // 2)
    return math.ceil(max(0, length - limit) / half) * half


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
