"""One decode step, translated for the device: torch.compile, and on a GPU a CUDA graph of the whole step.

Writing a token is hundreds of small operations. On a GPU each is done sooner than Python can ask for the next.
Translated, neighbours become one kernel, and a CUDA graph starts all of them at once. The price is a wait before the
first token, and a step whose shapes never change: it attends over the whole cache, with what is not there yet masked,
instead of over a view that grows with the text.

    eager      keys (B, K, length, D), a view; Python's own numbers say where
    compiled   keys (B, K, max_len, D), always; `column`, a tensor, says where the token stands

Prompts are read eagerly. On a CPU it pays with int8 weights only: the batched product of linear.py is quick already.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from transformer.attention import Context
from transformer.inference.padding import next_logits
from transformer.kv_cache import KVCache
from transformer.model import DecoderOnlyTransformer


class CompiledDecoder:
    """A model whose decode step is compiled; generation.py and writing.py take it in the model's place."""

    def __init__(self, model: DecoderOnlyTransformer, backend: str = "inductor") -> None:
        self.model, self.config, self.device = model, model.config, model.device
        self._caches: dict[int, KVCache] = {}
        mode = "reduce-overhead" if model.device.type == "cuda" and backend == "inductor" else None
        self._step = torch.compile(self._decode, fullgraph=True, dynamic=False, mode=mode, backend=backend)

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""
        return self.model.training

    def train(self, mode: bool = True) -> object:
        """Switches dropout on or off."""
        return self.model.train(mode)

    def allocate_cache(self, batch_size: int, max_len: int | None = None) -> KVCache:
        """Returns the one cache of this batch size, emptied, for the whole context: a graph knows its address.

        One text at a time, therefore: a second one of the same batch size begins where the first one's cache was.
        """
        if batch_size not in self._caches:
            cache = self.model.allocate_cache(batch_size)
            for tensor in cache.keys + cache.values:
                torch._dynamo.mark_static_address(tensor)
            self._caches[batch_size] = cache
        self._caches[batch_size].truncate(0)
        return self._caches[batch_size]

    def next_logits(self, tokens: Tensor, cache: KVCache | None = None, padding: Tensor | None = None) -> Tensor:
        """As the model's own: tokens (B, T) -> logits (B, V) of the token after the last."""
        if tokens.shape[1] > 1 or cache is None:
            return next_logits(self.model, tokens, cache, padding)
        if cache.length == cache.max_len:
            raise ValueError(f"{cache.length + 1} tokens do not fit the cache of {cache.max_len}")
        column = torch.tensor([cache.length], device=tokens.device)
        if padding is None:
            padding = torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device)
        tokens = tokens.clone(memory_format=torch.contiguous_format)  # other strides would be translated anew
        logits = self._step(tokens, cache.keys, cache.values, column, padding)
        cache.advance(1)
        return logits.clone()  # the next step of a graph writes to the same place

    def _decode(
        self, tokens: Tensor, keys: list[Tensor], values: list[Tensor], column: Tensor, padding: Tensor
    ) -> Tensor:
        """tokens (B, 1) at `column` (1,) of all keys and values (B, K, max_len, D) -> logits (B, V)."""
        model = self.model
        positions = column - padding[:, None]  # (B, 1)
        place = torch.arange(keys[0].shape[2], device=tokens.device)
        mask = ((place <= column) & (place >= padding[:, None]))[:, None, None]  # (B, 1, 1, S)
        rotary = None if model.rotary is None else model.rotary[:, positions].unsqueeze(-3)  # (2, B, 1, 1, D)
        if model.slopes is not None:
            bias = -model.slopes[:, None, None] * (column - place)  # (H, 1, S)
            mask = bias[None].masked_fill(~mask, -math.inf)  # (B, H, 1, S)
        context = Context(positions, rotary, mask)
        x = model.embeddings(tokens, positions)  # (B, 1, C)
        slots = _Slots(keys, values, column)
        for block in model.layers:
            x = block(x, context, slots)  # (B, 1, C)
        return model.head(model.final_norm(x)[:, -1])  # type: ignore[no-any-return]


class _Slots(KVCache):
    """A cache whose length is a tensor: what attention needs of one, and no more."""

    def __init__(self, keys: list[Tensor], values: list[Tensor], column: Tensor) -> None:
        super().__init__(keys, values)
        self.column = column

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes k and v (B, K, 1, D) at the column; returns all there is room for, (B, K, max_len, D)."""
        keys, values = self.keys[layer], self.values[layer]
        keys.index_copy_(2, self.column, k)
        values.index_copy_(2, self.column, v)
        return keys, values
