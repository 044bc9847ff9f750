r"""The key-value cache: the thousandth token takes about as long as the tenth.

**The problem.** A model generates one token at a time. Token n attends to the keys and values of all tokens before it.
If every step processes the whole text again, n tokens take 1 + 2 + ... + n = n (n + 1) / 2 passes of a token through
all layers: for 1,000 tokens 500,500 instead of 1,000.

**The idea.** With causal attention a token never depends on later ones, so its keys and values never change. Compute
them once and keep them. *Prefill* processes the prompt and fills the cache; each *decode* step then processes one
token, appends one key and one value per layer and head, and attends to all that are stored:

    prefill  "the cat sat"   tokens in: 3   cache: k0 k1 k2
    decode   "on"            tokens in: 1   cache: k0 k1 k2 k3
    decode   "the"           tokens in: 1   cache: k0 k1 k2 k3 k4

**Cost: memory.** A layer stores keys and values of B rows, K key and value heads, max_len tokens and width D:

    bytes per layer = 2 * B * K * max_len * D * bytes per number

The default model for one row of 128 tokens in float32: 2 * 1 * 4 * 128 * 64 * 4 = 262,144 bytes per layer.

>>> cache = KVCache.allocate(ModelConfig(num_heads=4, d_model=256, num_layers=6), batch_size=1, max_len=128)
>>> cache.capacity_bytes == 6 * 262_144
True
>>> for layer in range(6): keys, values = cache.update(layer, torch.ones(1, 4, 3, 64), torch.ones(1, 4, 3, 64))
>>> keys.shape, cache.length                                    # all layers have stored three tokens ...
(torch.Size([1, 4, 3, 64]), 0)
>>> cache.advance(3); cache.length, cache.nbytes                # ... which count from now on
(3, 36864)

**Design.** The cache is an *argument* of the model, not a state inside it: two texts are two caches, and no call can
forget to reset anything. It is allocated once, for the longest text; appending with torch.cat would copy all of it for
every token. Keys are stored after rotation, so positions count from the start of the cache.
Not chosen: pages of keys (they serve many texts of different lengths at once), and quantised entries (they change the
output).

**Is it working?** Any split of a text into chunks gives the same logits as the whole text at once, up to rounding.

Papers: the decoder of arXiv 1706.03762 computes keys and values once; why decoding is limited by memory bandwidth, and
how shared heads help, arXiv 1911.02150. Read before: attention.py, generation.py. Next: perplexity.py.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from transformer.config import ModelConfig


class KVCache:
    """Keys and values of up to `max_len` tokens per row, one tensor per layer; allocate() makes one for a model."""

    def __init__(self, keys: list[Tensor], values: list[Tensor]) -> None:
        """Takes the keys and the values of each layer, (B, K, max_len, D); their contents count as empty."""
        self.keys, self.values = keys, values
        self.length = 0  # tokens stored so far, the same in every layer

    @classmethod
    def allocate(
        cls,
        config: ModelConfig,
        batch_size: int,
        max_len: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Returns an empty cache of max_len tokens per row (default: max_seq_len)."""
        max_len = config.max_seq_len if max_len is None else max_len
        if batch_size < 1 or max_len < 1:
            raise ValueError(f"batch_size={batch_size} and max_len={max_len} must be at least 1")
        shape = (batch_size, config.kv_heads, max_len, config.head_dim)  # (B, K, max_len, D)
        layers = range(config.num_layers)
        keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]
        values = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]
        return cls(keys, values)

    @property
    def max_len(self) -> int:
        """The number of tokens per row that fit."""
        return self.keys[0].shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of the stored entries: layers * 2 * B * K * length * D * bytes per number."""
        return self.capacity_bytes * self.length // self.max_len

    @property
    def capacity_bytes(self) -> int:
        """Bytes that are allocated."""
        return sum(tensor.nbytes for tensor in self.keys + self.values)

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores k and v (B, K, T, D) of the new tokens; returns those of all tokens so far, each (B, K, S, D).

        The results are views, not copies. Raises ValueError if the new tokens do not fit.
        """
        if len(k) != len(self.keys[layer]):
            raise ValueError(f"the cache is for a batch of {len(self.keys[layer])}, not {len(k)}")
        end = self.length + k.shape[2]
        if end > self.max_len:
            raise ValueError(f"{end} tokens do not fit the cache of max_len={self.max_len}: allocate a longer one")
        # In place, behind the tokens stored before: nothing is copied.
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, self.length : end] = k
        values[:, :, self.length : end] = v
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, tokens: int) -> None:
        """Counts new tokens. The model calls this after the last layer, so that all layers store to the same place."""
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Removes all but the first `length` tokens. Raises ValueError if the cache has fewer."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate to {length} tokens: the cache holds {self.length}")
        self.length = length
