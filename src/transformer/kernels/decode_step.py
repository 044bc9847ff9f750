"""One decode step as straight-line code: the same operations as the core's modules, without what lies between them.

Generation processes one token of each text at a time. For the default model on two cores of an AMD EPYC, the products
of such a step take 3.9 ms, and the core's modules another 1.5 ms: some 80 module calls, each with its checks for hooks
and modes, and 160 changes of shape that a single token does not need. Here each layer's weights are prepared once for a
text, and a step is a list of function calls on vectors (B, C). It computes what the core computes, bit for bit if the
products are the same.

    core        block -> attention_norm -> attention -> qkv -> ... for tokens (B, T) with any T, training or not
    here        the same formulas for T = 1, without dropout

The steps are prepared for one cache, and again for the next one, so a step follows changes of the weights in place;
`FastDecoder` runs the core's code for everything else: prompts, training, gradients, autocast, other devices, modules
that were replaced or have hooks.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from transformer.activations import is_hooked
from transformer.attention import CausalSelfAttention, Context, fused_attention, normalise
from transformer.block import Block
from transformer.embeddings import Embeddings, rotate
from transformer.feedforward import FeedForward
from transformer.kernels import attention
from transformer.kernels.activation_checkpointing import CheckpointedBlock
from transformer.kernels.row_products import MOST_PACKED_BYTES, row_product
from transformer.kv_cache import KVCache
from transformer.model import DecoderOnlyTransformer
from transformer.processor import Choices


class FastDecoder(DecoderOnlyTransformer):
    """The model with this file's next_logits. accelerate() turns a model into one; nothing else changes."""

    choices: Choices
    """The routines for this processor."""
    _prepared: tuple[weakref.ref[KVCache], DecodeStep | None] | None = None

    def next_logits(self, tokens: Tensor, cache: KVCache | None = None, context: Context | None = None) -> Tensor:
        """As the core's; a single new token on a CPU takes the prepared step."""
        if cache is None or tokens.shape != (len(cache.keys[0]), 1) or not self._may_prepare(tokens):
            return super().next_logits(tokens, cache, context)
        context = self.context(tokens, cache) if context is None else context
        step = self._step(cache, len(tokens))
        return super().next_logits(tokens, cache, context) if step is None else step(tokens, cache, context)

    def _may_prepare(self, tokens: Tensor) -> bool:
        return (
            tokens.device.type == "cpu"
            and not self.training
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and not is_hooked(self)  # a step that was prepared before would pass the hooks by
        )

    def _step(self, cache: KVCache, rows: int) -> DecodeStep | None:
        """Returns the step that was prepared for this cache, or prepares it; None if the model is not as the core's."""
        if self._prepared is None or self._prepared[0]() is not cache:
            step = DecodeStep(self, rows, self.choices) if _is_as_built(self) else None
            self._prepared = (weakref.ref(cache), step)
        return self._prepared[1]

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles contain the model without the prepared step."""
        return {name: value for name, value in self.__dict__.items() if name != "_prepared"}


class DecodeStep:
    """tokens (B, 1) -> logits (B, V), for a model that is as built; the cache is advanced by one token."""

    def __init__(self, model: DecoderOnlyTransformer, rows: int, choices: Choices) -> None:
        if sum(parameter.nbytes for parameter in model.parameters()) > MOST_PACKED_BYTES:
            choices = replace(choices, packs_from=0)
        self.embeddings = model.embeddings
        self.layers = [LayerStep(block, rows, choices) for block in model.layers]
        self.final_norm, self.head = _norm(model.final_norm), row_product(model.head, rows, choices)

    def __call__(self, tokens: Tensor, cache: KVCache, context: Context) -> Tensor:
        x = self.embeddings(tokens, context.positions)[:, 0]  # (B, C)
        for layer in self.layers:
            x = layer(x, cache, context)
        cache.advance(1)
        return self.head(self.final_norm(x))


class LayerStep:
    """A block for one token: x (B, C) -> (B, C)."""

    def __init__(self, block: Block, rows: int, choices: Choices) -> None:
        attention, network = block.attention, block.feedforward
        self.layer, self.head_dim = attention.layer, attention.head_dim
        self.heads, self.kv_heads = attention.num_heads, attention.num_kv_heads
        self.widths, self.q_norm, self.k_norm = attention.widths, attention.q_norm, attention.k_norm
        self.norms_after, self.is_parallel = block.norms_after, block.is_parallel
        self.attention_norm, self.feedforward_norm = _norm(block.attention_norm), _norm(block.feedforward_norm)
        self.qkv, self.out = row_product(attention.qkv, rows, choices), row_product(attention.out, rows, choices)
        self.up, self.down = row_product(network.up, rows, choices), row_product(network.down, rows, choices)
        self.gate = None if network.gate is None else row_product(network.gate, rows, choices)
        self.activation = network.activation

    def __call__(self, x: Tensor, cache: KVCache, context: Context) -> Tensor:
        if self.norms_after:
            x = x + self.attention_norm(self.attend(x, cache, context))
            return x + self.feedforward_norm(self.compute(x))
        attended = x + self.attend(self.attention_norm(x), cache, context)
        return attended + self.compute(self.feedforward_norm(x if self.is_parallel else attended))

    def compute(self, x: Tensor) -> Tensor:
        """The feed-forward network."""
        if self.gate is None:
            return self.down(self.activation(self.up(x)))
        return self.down(self.activation(self.gate(x)) * self.up(x))

    def attend(self, x: Tensor, cache: KVCache, context: Context) -> Tensor:
        """Attention of the new token to all tokens so far."""
        projected = self.qkv(x)  # (B, (H + 2K) D)
        if self.q_norm is not None:
            q, k, v = projected.split(self.widths, dim=-1)
            projected = torch.cat([normalise(q, self.q_norm), normalise(k, self.k_norm), v], dim=-1)
        projected = projected.view(len(x), -1, 1, self.head_dim)  # (B, H + 2K, 1, D): one token for each head
        qk, v = projected.split([self.heads + self.kv_heads, self.kv_heads], dim=1)
        if context.rotary is not None:
            qk = rotate(qk, context.rotary)
        q, k = qk.split([self.heads, self.kv_heads], dim=1)
        k, v = cache.update(self.layer, k, v)  # (B, K, S, D)
        return self.out(fused_attention(q, k, v, context.mask).view(len(x), -1))


def _norm(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Returns the norm as one call of its function."""
    if isinstance(module, nn.RMSNorm):
        return module
    assert isinstance(module, nn.LayerNorm)
    shape, eps = list(module.normalized_shape), module.eps
    return partial(torch.layer_norm, normalized_shape=shape, weight=module.weight, bias=module.bias, eps=eps)


AS_BUILT = {
    "embeddings": (Embeddings,), "attention": (CausalSelfAttention,), "feedforward": (FeedForward,),
    "attention_norm": (nn.LayerNorm, nn.RMSNorm), "feedforward_norm": (nn.LayerNorm, nn.RMSNorm),
    "final_norm": (nn.LayerNorm, nn.RMSNorm), "q_norm": (nn.RMSNorm,), "k_norm": (nn.RMSNorm,),
}  # fmt: skip
"""The types of the parts that the steps replace, by name; of subclasses nothing is known."""


def _is_as_built(model: DecoderOnlyTransformer) -> bool:
    """Whether the steps compute what the model computes: known types, whole tensors, no hooks, known attention."""
    return (
        not torch_module._has_any_global_hook()
        and all(type(block) in (Block, CheckpointedBlock) for block in model.blocks)
        and all(
            type(module) in AS_BUILT.get(name.split(".")[-1], (type(module),))
            and not module._forward_hooks
            and not module._forward_pre_hooks
            for name, module in model.named_modules()
        )
        and all(type(parameter.data) is Tensor for parameter in model.parameters())
        and all(block.attention.attend in (fused_attention, attention.attend) for block in model.layers)
    )
