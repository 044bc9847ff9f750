"""Prompts of unequal length in one batch: padding on the left, which no token attends to and no position counts.

One pass reads all weights, for one row as for eight. So prompts are continued together; shorter ones are padded on the
left, and the next token of every row is in the same column:

    columns      0  1  2  3
    row 0        .  .  5  6      padding 2: the positions of 5 and 6 are 0 and 1
    row 1        7  8  9  3      padding 0

What the model returns for the padding itself has no meaning and is never used.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from transformer.attention import Context
from transformer.kv_cache import KVCache

PREFILL_CHUNK = 512
"""Tokens of a prompt that are read at once: more are no faster and need more memory for activations."""


class Model(Protocol):
    """The methods of DecoderOnlyTransformer that are used here."""

    def context(
        self, tokens: Tensor, cache: KVCache | None = None, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> Context:
        """See model.py."""

    def hidden(self, tokens: Tensor, cache: KVCache | None = None, context: Context | None = None) -> Tensor:
        """See model.py."""

    def next_logits(self, tokens: Tensor, cache: KVCache | None = None, context: Context | None = None) -> Tensor:
        """See model.py."""


def padding_mask(padding: Tensor, queries: int, keys: int) -> Tensor:
    """Returns (B, 1, T, S) bool: causal, and True only for keys to the right of the padding, (B,) int64.

    A padding token attends to itself, because softmax needs at least one key. By hand, one padding token of three:

    >>> padding_mask(torch.tensor([1]), queries=3, keys=3).int().tolist()
    [[[[1, 0, 0], [0, 1, 0], [0, 1, 1]]]]
    """
    key = torch.arange(keys, device=padding.device)  # (S,)
    query = key[keys - queries :, None]  # (T, 1)
    is_text = key >= padding[:, None, None, None]  # (B, 1, 1, S)
    return (key <= query) & is_text | (key == query)


def padded_context(model: Model, tokens: Tensor, cache: KVCache | None, padding: Tensor) -> Context:
    """Returns the context of tokens (B, T) that continue the cache, if row i begins with padding[i] padding tokens.

    padding (B,) int64 counts from the first column of the cache. Raises ValueError as model.context() does.
    """
    past, new = 0 if cache is None else cache.length, tokens.shape[1]
    columns = torch.arange(past, past + new, device=tokens.device)  # (T,)
    positions = (columns - padding[:, None]).clamp(min=0)  # (B, T)
    return model.context(tokens, cache, padding_mask(padding, new, past + new), positions)


def next_logits(model: Model, tokens: Tensor, cache: KVCache | None = None, padding: Tensor | None = None) -> Tensor:
    """Returns the logits that follow the last column, (B, V); tokens (B, T), padding (B,) int64 or None for none.

    With a cache, a long prompt is read PREFILL_CHUNK tokens at a time.
    """
    *earlier, last = tokens.split(PREFILL_CHUNK if cache is not None else max(1, tokens.shape[1]), dim=1)

    def context(chunk: Tensor) -> Context | None:
        return None if padding is None else padded_context(model, chunk, cache, padding)

    for chunk in earlier:
        model.hidden(chunk, cache, context(chunk))
    return model.next_logits(last, cache, context(last))
