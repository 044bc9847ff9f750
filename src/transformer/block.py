r"""The block: attention and feed-forward on one residual stream.

**The problem.** Depth helps, since each layer can build on what the last one found. But stack twelve plain layers and
training fails: gradients pass through every layer's weights on the way down and vanish or explode.

**The idea.** A layer does not replace a token's vector, it *adds* to it:

    x = x + attention(norm(x))           gather from other tokens
    x = x + feed_forward(norm(x))        work on what was gathered

    x ----+-----------------------(+)----+--------------------------(+)---->
          |                        ^     |                           ^
          +-> norm -> attention ---+     +-> norm -> feed-forward ---+

The line across is the *residual stream*. Read it as a workspace of C numbers a token: each part reads a normalised
copy and writes a correction. Going down, the gradient of a sum is passed on whole, so the first block learns as
directly as the last.

**Norms.** Parts read at a steady scale, whatever has been written to the stream. LayerNorm takes away the mean and
divides by the spread; RMSNorm leaves the mean in and divides by the root of the mean square, one pass less:

    layernorm(x) = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias
    rmsnorm(x)   =  x / sqrt(mean(x^2) + eps) * weight

By hand, x = [1, 3]: mean 2, variance 1, so [-1, 1]. Mean square (1 + 9) / 2 = 5, so [1, 3] / 2.236:

>>> import torch
>>> x = torch.tensor([1.0, 3.0])
>>> norm(ModelConfig(d_model=2, norm_eps=1e-12))(x).tolist()
[-1.0, 1.0]
>>> [round(n, 3) for n in norm(ModelConfig(d_model=2, norm="rmsnorm", norm_eps=1e-12))(x).tolist()]
[0.447, 1.342]

**Where the norm stands.** Here before each part (*pre-LN*). The first paper put it after the sum, on the stream
itself; then the gradient passes through every norm on its way down, and training needs a long, careful warm-up to
survive. With pre-LN nothing interrupts the stream; in exchange it grows with depth, so the model ends with one
more norm.

**Dropout**, on each correction before it is added: the stream itself is never zeroed.
**Cost** per token: 12 C^2 multiply-adds in the matrices at d_ff = 4 C, and 2 S C for attention's scores and mix.
**Is it working?** At the start each correction is small beside the stream (see the initialisation in model.py);
remove any one block of a trained model and it gets worse, not useless.

Papers: residuals, arXiv 1512.03385; LayerNorm, arXiv 1607.06450; RMSNorm, arXiv 1910.07467; pre-LN, arXiv 2002.04745.
Read before: attention.py, feedforward.py. Next: model.py.
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
        self.attention_norm = norm(config)
        self.attention = CausalSelfAttention(config, layer)
        self.feedforward_norm = norm(config)
        self.feedforward = FeedForward(config)

    def forward(self, x: Tensor, context: Context, cache: KVCache | None = None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), context, cache)  # gather from other tokens
        return x + self.feedforward(self.feedforward_norm(x))  # compute with what was gathered
