"""Prompts of unequal length in one batch: padding on the left, which no token attends to and no position counts.

Shorter prompts are padded on the left, so that the next token of every row is in the same column:

    columns      0  1  2  3
    row 0        .  .  5  6      padding 2: the positions of 5 and 6 are 0 and 1
    row 1        7  8  9  3      padding 0

>>> tokens, padding = pad([[5, 6], [7, 8, 9, 3]])
>>> tokens.tolist(), padding.tolist()
([[5, 5, 5, 6], [7, 8, 9, 3]], [2, 0])

The output of the model at the padding itself has no meaning and is never used.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transformer.attention import Context
from transformer.kv_cache import KVCache
from transformer.model import DecoderOnlyTransformer

PREFILL_CHUNK = 512
"""Tokens of a prompt that are processed at once: more are no faster, and need more memory for activations."""


def pad(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Returns prompts of unequal length as tokens (B, T) int64, padded on the left, and padding (B,) int64.

    Raises ValueError if there is no prompt, or one without a token.
    """
    if not prompts or not all(prompts):
        raise ValueError("give at least one prompt, and each at least one token: start an empty text from end-of-text")
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    # A row is padded with its own first token, so that the padding adds nothing to repetition_penalty.
    rows = [[prompt[0]] * count + list(prompt) for prompt, count in zip(prompts, padding, strict=True)]
    return torch.tensor(rows), torch.tensor(padding)


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


def padded_context(model: DecoderOnlyTransformer, tokens: Tensor, cache: KVCache | None, padding: Tensor) -> Context:
    """Returns the context of tokens (B, T) that continue the cache, if row i begins with padding[i] padding tokens.

    padding (B,) int64 counts from the first column of the cache. Raises ValueError as model.context() does.
    """
    past, new = 0 if cache is None else cache.length, tokens.shape[1]
    columns = torch.arange(past, past + new, device=tokens.device)  # (T,)
    positions = (columns - padding[:, None]).clamp(min=0)  # (B, T)
    return model.context(tokens, cache, padding_mask(padding, new, past + new), positions)


def next_logits(
    model: DecoderOnlyTransformer, tokens: Tensor, cache: KVCache | None = None, padding: Tensor | None = None
) -> Tensor:
    """Returns the logits that follow the last column, (B, V); tokens (B, T), padding (B,) int64 or None for none.

    With a cache, a long prompt is processed PREFILL_CHUNK tokens at a time.
    """
    *earlier, last = tokens.split(PREFILL_CHUNK if cache is not None else max(1, tokens.shape[1]), dim=1)

    def context(chunk: Tensor) -> Context | None:
        return None if padding is None else padded_context(model, chunk, cache, padding)

    for chunk in earlier:
        model.hidden(chunk, cache, context(chunk))
    return model.next_logits(last, cache, context(last))
