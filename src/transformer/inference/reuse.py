"""Reuses the keys and values of the text before: in a chat, a prompt begins with the whole conversation so far.

    first text     a b c | d e            prompt and answer: five tokens are processed
    second text    a b c d e f | g        a to d are in the cache already: only e and f are processed before g

(The last token of a text, here e, is never processed: nothing follows it.) The beginning that both texts have in common
is copied from one cache to the other, which takes milliseconds where processing it takes seconds. Keys and values
depend only on the tokens before them and on their positions, so the copy is exact.
"""

from __future__ import annotations

from torch import Tensor

from transformer.kv_cache import KVCache


class Reuse:
    """The cache of one text, and its tokens; the next text takes from it what both have in common."""

    def __init__(self) -> None:
        self._cache: KVCache | None = None
        self._tokens: Tensor | None = None

    def begin(self, cache: KVCache, tokens: Tensor, length: int) -> None:
        """Fills the empty cache of a text of `length` tokens, all but its last one at most, and remembers both.

        tokens (S,) int64: the text from the first token of the cache, with room for the tokens that follow. A cache in
        the memory of the one before, as CompiledDecoder's, stays empty: texts in between may have changed it.
        """
        if self._cache is not None and self._tokens is not None and self._cache.keys[0] is not cache.keys[0]:
            count = min(self._cache.length, length - 1)
            differs = (self._tokens[:count] != tokens[:count]).nonzero()
            count = int(differs[0]) if len(differs) else count
            for old, new in zip(self._cache.keys + self._cache.values, cache.keys + cache.values, strict=True):
                new[:, :, :count] = old[:, :, :count]
            cache.advance(count)
        self._cache, self._tokens = cache, tokens
