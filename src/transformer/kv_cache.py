r"""The key-value cache: what makes writing the thousandth token as quick as the tenth.

**The problem.** A model writes one token at a time. Token n looks at the keys and values of all n tokens before it.
Computed afresh for every new token, that is 1 + 2 + ... + n runs of each token through all layers: the work for
a text grows with its square even before attention's own cost.

**The idea.** A causal token never sees what comes later, so its keys and values never change. Compute them once and
keep them. *Prefill* runs the prompt through the model and fills the cache; each *decode* step then runs one token,
appends one key and one value a layer, and attends over what is there:

    prefill  "the cat sat"   tokens in: 3   cache: k0 k1 k2
    decode   "on"            tokens in: 1   cache: k0 k1 k2 k3
    decode   "the"           tokens in: 1   cache: k0 k1 k2 k3 k4

**The memory.** A layer holds keys and values, (batch, heads, seq_len, d_k) each:

    bytes a layer = 2 * batch * heads * seq_len * d_k * bytes per number

The default model (4 heads of width 64) at 128 tokens in float32: 2 * 4 * 128 * 64 * 4 = 262,144 bytes a layer.

>>> cache = KVCache.allocate(ModelConfig(num_heads=4, d_model=256, num_layers=6), batch_size=1, max_len=128)
>>> keys, values = cache.update(0, torch.ones(1, 4, 3, 64), torch.ones(1, 4, 3, 64))
>>> keys.shape, cache.length                                    # written, and visible to this layer ...
(torch.Size([1, 4, 3, 64]), 0)
>>> cache.advance(3); cache.length, cache.nbytes                # ... counted once all layers have written
(3, 36864)
>>> cache.capacity_bytes == 6 * 262_144
True

**Design.** The cache is an *argument* of the model, not a state inside it: two texts are two caches, and no call can
forget to reset anything. It is allocated once for the longest text wanted; growing it by concatenation would copy all
of it for every token. The model advances it once per call, after the last layer, so that every layer writes to the
same place. Keys are stored after rotation, hence positions are counted from the cache's own start.
Not chosen: pages (they serve many texts of differing lengths at once) and quantised entries (they change the output).

**Is it working?** Any split of a text into chunks gives the same logits as the whole at once, to rounding; tests try
every split. Papers: the cache comes with arXiv 1706.03762's decoder; why it makes decoding a matter of memory speed,
and what sharing heads does about it, arXiv 1911.02150. Read before: attention.py. Next: feedforward.py.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from transformer.config import ModelConfig


class KVCache:
    """Keys and values of up to `max_len` tokens a row; allocate() makes one that fits a model."""

    def __init__(self, keys: list[Tensor], values: list[Tensor]) -> None:
        """Takes a layer's keys and values each, (B, K, max_len, D); their contents count as empty."""
        self.keys, self.values = keys, values
        self.length = 0

    @classmethod
    def allocate(
        cls,
        config: ModelConfig,
        batch_size: int,
        max_len: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Returns an empty cache with room for max_len tokens a row (default: the model's whole context)."""
        max_len = config.max_seq_len if max_len is None else max_len
        if batch_size < 1 or max_len < 1:
            raise ValueError(f"a cache for batch_size={batch_size} and max_len={max_len} would hold nothing")
        shape = (batch_size, config.kv_heads, max_len, config.head_dim)
        layers = range(config.num_layers)
        keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]
        values = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]
        return cls(keys, values)

    @property
    def max_len(self) -> int:
        """Tokens a row that fit."""
        return self.keys[0].shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of the entries in use: layers * 2 * B * K * length * D * bytes per number."""
        return self.capacity_bytes * self.length // self.max_len

    @property
    def capacity_bytes(self) -> int:
        """Bytes that are allocated."""
        return sum(tensor.nbytes for tensor in self.keys + self.values)

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes the new tokens' k and v (B, K, T, D); returns all so far, each (B, K, S, D), as views.

        Raises ValueError where they do not fit.
        """
        if len(k) != len(self.keys[layer]):
            raise ValueError(f"the cache is for {len(self.keys[layer])} texts at once, not {len(k)}")
        end = self.length + k.shape[2]
        if end > self.max_len:
            raise ValueError(f"the cache has room for {self.max_len} tokens, not {end}: allocate a longer one")
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, self.length : end] = k
        values[:, :, self.length : end] = v
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, tokens: int) -> None:
        """Counts the tokens that every layer has now written."""
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Forgets all but the first `length` tokens, to go on from there."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate to {length} tokens: the cache holds {self.length}")
        self.length = length

    def select(self, rows: Tensor) -> None:
        """Makes row i of the batch what row rows[i] was; rows (B',) int64. Beam search, or dropping finished rows."""
        self.keys = [keys.index_select(0, rows) for keys in self.keys]
        self.values = [values.index_select(0, rows) for values in self.values]
