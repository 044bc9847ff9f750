r"""The block: attention and feed-forward network on one residual stream.

**The problem.** Depth helps, because each layer can build on the result of the last. But a plain stack of many layers
does not train: the gradient is multiplied by every layer's weights on its way back, and vanishes or explodes.

**The idea.** A layer does not replace a token's vector, it *adds* to it:

    x = x + attention(norm(x))           gather from other tokens
    x = x + feed_forward(norm(x))        compute with what was gathered

    x ----+-----------------------(+)----+--------------------------(+)---->
          |                        ^     |                           ^
          +-> norm -> attention ---+     +-> norm -> feed-forward ---+

The horizontal line is the *residual stream*: C numbers for each token, which every part reads (through a norm) and adds
a correction to. The gradient of a sum reaches both terms unchanged, so the first block gets it as directly as the last.

**Norms** give each part inputs of the same scale, however large the stream has become. LayerNorm subtracts the mean and
divides by the standard deviation (var divides by C, not C - 1); RMSNorm only divides by the root of the mean square:

    layernorm(x) = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias
    rmsnorm(x)   =  x / sqrt(mean(x^2) + eps) * weight

By hand, x = [1, 3]: mean 2, variance 1, so [-1, 1]. Mean square (1 + 9) / 2 = 5, so [1, 3] / 2.236:

>>> import torch
>>> x, shape = torch.tensor([1.0, 3.0]), {"d_model": 2, "num_heads": 1, "norm_eps": 1e-12}
>>> norm(ModelConfig(**shape))(x).tolist()
[-1.0, 1.0]
>>> [round(n, 3) for n in norm(ModelConfig(**shape, norm="rmsnorm"))(x).tolist()]
[0.447, 1.342]

**Where the norm is.** Here it comes before each part (*pre-norm*). The first transformer normalised the stream itself,
after each sum (*post-norm*); then the gradient passes through every norm, and training needs a long warm-up. With
pre-norm nothing interrupts the stream. It grows from block to block instead, as each adds to it, so the model ends
with one more norm. Two variants, to skip at first: with `norm_position="after"` (OLMo 2) each part reads the stream
as it is, and its correction is normalised before it is added, x + norm(attention(x)); the stream itself is not. With
`parallel_blocks` (GPT-NeoX) the feed-forward network does not wait for attention, but reads the same x, through a norm
of its own: x + attention(norm(x)) + feed_forward(norm'(x)).

**Dropout** acts once on the embeddings, then on the attention weights and on each correction before it is added; never
on the stream between blocks.
**Cost** per token: 12 C^2 multiply-adds in the matrices if d_ff = 4 C, and 2 S C for attention over S tokens.
**Is it working?** At the start (default width) the stream has a standard deviation of 0.03 after the embeddings and of
0.09 after the last block, for 2 blocks as for 48: the more blocks there are, the smaller model.py starts their
corrections. If you remove one of the middle blocks of a trained model, it gets worse, not useless.

Papers: residuals, arXiv 1512.03385; LayerNorm, arXiv 1607.06450; RMSNorm, arXiv 1910.07467; pre-norm, arXiv 2002.04745;
norms after, arXiv 2501.00656; parallel blocks, arXiv 2204.06745. Read before: attention.py, feedforward.py. Next:
model.py.
"""

from __future__ import annotations

from torch import Tensor, nn

from transformer.attention import CausalSelfAttention, Context
from transformer.config import ModelConfig
from transformer.feedforward import FeedForward
from transformer.kv_cache import KVCache


def norm(config: ModelConfig) -> nn.LayerNorm | nn.RMSNorm:
    """Returns the kind of norm that the config names, over the last dimension (C)."""
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.d_model, eps=config.norm_eps)
    return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias)


class Block(nn.Module):
    """One layer of the model; x (B, T, C) -> (B, T, C). `layer` is its index, which the cache needs."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.norms_after, self.is_parallel = config.norm_position == "after", config.parallel_blocks
        self.attention_norm = norm(config)
        self.attention = CausalSelfAttention(config, layer)
        self.feedforward_norm = norm(config)
        self.feedforward = FeedForward(config)

    def forward(self, x: Tensor, context: Context, cache: KVCache | None = None) -> Tensor:
        if self.norms_after:  # type_as: in mixed precision (autocast) the stream and its norms are float32
            x = x + self.attention_norm(self.attention(x, context, cache).type_as(x))
            return x + self.feedforward_norm(self.feedforward(x).type_as(x))
        if self.is_parallel:
            return (
                x + self.attention(self.attention_norm(x), context, cache) + self.feedforward(self.feedforward_norm(x))
            )
        x = x + self.attention(self.attention_norm(x), context, cache)
        return x + self.feedforward(self.feedforward_norm(x))
