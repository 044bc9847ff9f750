"""One compiled decode step: torch.compile, and on a GPU a CUDA graph of the whole step.

Generating a token takes hundreds of small operations. A GPU finishes each of them sooner than Python can start the
next. torch.compile fuses neighbouring operations into one kernel, and a CUDA graph starts all kernels at once. The
price is the time to compile, before the first token, and a step whose shapes never change: it attends over the whole
cache, with the empty part masked, instead of over a view that grows with the text.

    eager      keys (B, K, length, D), a view; the length is a Python number
    compiled   keys (B, K, max_len, D), always; the length is a tensor, `column`

Prompts are processed eagerly, and every token while hooks of activations.py are on. On a CPU kernels/decode_step.py
prepares its step without a compiler, and the float32 products are fast already; float16 weights cannot be compiled
there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from transformer.activations import is_hooked
from transformer.inference.padding import next_logits
from transformer.kernels.float16 import Float16Linear
from transformer.kv_cache import KVCache
from transformer.model import DecoderOnlyTransformer
from transformer.sampling import Filter


class CompiledDecoder:
    """A model with a compiled decode step; inference/batch.py and text_stream.py take it in place of the model.

    It has one cache for each batch size, because a CUDA graph reads fixed addresses. So it continues one batch of that
    size at a time: an older one that is continued after a newer one has started raises ValueError.
    """

    def __init__(self, model: DecoderOnlyTransformer, backend: str = "inductor") -> None:
        if any(isinstance(part, Float16Linear) and part.packed is not None for part in model.modules()):
            raise ValueError("float16 weights cannot be compiled on a CPU: leave out --compile, or take int8 weights")
        self.model, self.config, self.device = model, model.config, model.device
        self._caches: dict[int, KVCache] = {}  # batch size -> the newest cache that was handed out
        mode = "reduce-overhead" if model.device.type == "cuda" and backend == "inductor" else None
        self._step = torch.compile(self._decode, fullgraph=True, dynamic=False, mode=mode, backend=backend)

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""
        return self.model.training

    @property
    def filter_logits(self) -> Filter:
        """The filters of the model."""
        return self.model.filter_logits

    def train(self, mode: bool = True) -> object:
        """Switches dropout on or off."""
        return self.model.train(mode)

    def allocate_cache(self, batch_size: int, max_len: int | None = None) -> KVCache:
        """Returns an empty cache for the whole context, in the memory of the previous one of this batch size."""
        previous = self._caches.get(batch_size)
        if previous is None:
            previous = self.model.allocate_cache(batch_size)
            for tensor in previous.keys + previous.values:
                torch._dynamo.mark_static_address(tensor)
        self._caches[batch_size] = KVCache(previous.keys, previous.values)
        return self._caches[batch_size]

    def next_logits(self, tokens: Tensor, cache: KVCache | None = None, padding: Tensor | None = None) -> Tensor:
        """Returns the logits that follow the last column, (B, V), as padding.next_logits does.

        Raises ValueError if the cache is full, or if a newer batch uses its memory.
        """
        if cache is not None and cache is not self._caches.get(len(tokens)):
            raise ValueError(
                f"a newer batch of {len(tokens)} uses the cache of this compiled decoder: "
                "finish one batch before the next, or make a CompiledDecoder for each"
            )
        if tokens.shape[1] > 1 or cache is None or is_hooked(self.model):  # a compiled step calls no hooks
            return next_logits(self.model, tokens, cache, padding)
        if cache.length == cache.max_len:
            raise ValueError(f"{cache.length + 1} tokens do not fit the cache of max_len={cache.max_len}")
        column = torch.tensor([cache.length], device=tokens.device)
        if padding is None:
            padding = torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device)
        tokens = tokens.clone(memory_format=torch.contiguous_format)  # other strides would be compiled again
        logits = self._step(tokens, cache.keys, cache.values, column, padding)
        cache.advance(1)
        return logits.clone()  # the next step of a CUDA graph overwrites its output

    def _decode(
        self, tokens: Tensor, keys: list[Tensor], values: list[Tensor], column: Tensor, padding: Tensor
    ) -> Tensor:
        """tokens (B, 1) at `column` (1,) of all keys and values (B, K, max_len, D) -> logits (B, V)."""
        model = self.model
        columns = torch.arange(keys[0].shape[2], device=tokens.device)  # (S,), S = max_len
        mask = ((columns <= column) & (columns >= padding[:, None]))[:, None, None]  # (B, 1, 1, S)
        context = model.context(tokens, mask=mask, positions=column - padding[:, None])
        if model.slopes is not None:  # model.context() computes ALiBi from the length as a Python number
            bias = -model.slopes[:, None, None] * (column - columns)  # (H, 1, S)
            context = context._replace(mask=bias.masked_fill(~mask, -math.inf))  # (B, H, 1, S)
        hidden = model.hidden(tokens, _FixedCache(keys, values, column), context)  # (B, 1, C)
        return model.head(hidden[:, -1])  # type: ignore[no-any-return]


class _FixedCache(KVCache):
    """A view of a cache for one compiled step: its length is a tensor, and keys and values have all columns."""

    def __init__(self, keys: list[Tensor], values: list[Tensor], column: Tensor) -> None:
        super().__init__(keys, values)
        self.column = column

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores k and v (B, K, 1, D) at the column; returns all columns, (B, K, max_len, D)."""
        keys, values = self.keys[layer], self.values[layer]
        keys.index_copy_(2, self.column, k)
        values.index_copy_(2, self.column, v)
        return keys, values

    def advance(self, tokens: int) -> None:
        """Does nothing: the CompiledDecoder advances its own cache, outside the compiled step."""
