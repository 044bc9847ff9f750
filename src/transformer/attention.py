r"""Attention: how a token gathers information from the tokens before it.

**The problem.** In "the cat sat because it was tired", the vector of "it" must come to mean "cat". A fixed window
misses words that are further away; a recurrent state has to squeeze the whole text into one vector.

**The idea.** Three linear maps give each token a *query* (what am I looking for?), a *key* (what do I contain?) and a
*value* (what do I pass on?). A query is compared with all keys up to its own position by dot products, softmax maps
these scores to *attention weights* that sum to 1, and the token receives the weighted sum of the values:

    attention(q, k, v) = softmax(q k^T / sqrt(D) + mask) v

The rows of q, k and v are the queries, keys and values; D is the length of a query and of a key.

*Why sqrt(D)?* The dot product of two vectors of D independent numbers of mean 0 and variance 1 has variance D. Without
the division the scores of wide heads would be large, softmax nearly one-hot, and its gradient nearly 0.

*Why a mask?* The model learns to predict token t+1 at position t, at all positions at once. So no query may attend to
later tokens: their scores become -inf, which softmax maps to exactly 0.

             key 0   1   2   3
    query 0      x   .   .   .        x: may attend
    query 1      x   x   .   .        .: score -inf, weight 0
    query 2      x   x   x   .
    query 3      x   x   x   x

By hand: two tokens, D = 1, queries [1, 2], keys [0, ln 3], values [10, 20]. Query 0 sees only key 0 and gets 10.
Query 1 has scores [0, 2 ln 3], so weights [1, 9] / 10, and gets 0.1 * 10 + 0.9 * 20 = 19:

>>> column = lambda *numbers: torch.tensor(numbers).view(1, 1, -1, 1)       # one text, one head, T numbers, D = 1
>>> out, weights = explicit_attention(column(1.0, 2.0), column(0.0, math.log(3)), column(10.0, 20.0))
>>> out.flatten().tolist(), weights[0, 0].mul(10).round().tolist()
([10.0, 19.0], [[10.0, 0.0], [1.0, 9.0]])

**Heads.** A token may need several things at once, for example its subject and the previous word, and one softmax gives
one weighted sum. So H heads run side by side, each with queries, keys and values of width D = C / H (or `head_width`),
and a last linear map combines their results. With fewer key and value heads than query heads (*grouped queries*),
neighbouring query heads share a key and a value head, so there are fewer keys and values to compute and to store.

**Variants** of other families of models, to skip at first. With `qkv_bias=True` (Qwen2.5) the three maps have a bias,
whatever the other layers have. With `qk_norm` queries and keys are divided by the root of their mean square before they
are rotated (RMS norm: block.py), each head alone (Qwen3) or all together (OLMo 2), so that scores do not grow with the
stream.

**Prefill and decode: two modes, one path.** This is for generation only: on a first reading assume T = S and no cache,
and come back after generation.py. *Prefill* processes all prompt tokens at once. *Decode* processes one new token,
whose query meets the keys of all tokens so far, its own included. Both are T new queries (decode: T = 1) against S
keys: query i has position S - T + i and attends to all keys up to there. So the mask is aligned to the bottom right.

             key 0   1   2   3   4          two new tokens after three that are cached
    query 0      x   x   x   x   .          position 3
    query 1      x   x   x   x   x          position 4

kv_cache.py keeps the keys and values between calls: update() stores those of the new tokens behind the earlier ones and
returns all; advance() counts the new tokens when every layer has stored its own.

**Cost** for one text: 4 T C^2 multiply-adds for the projections, 2 T S C for scores and weighted sums. The second grows
with the square of the context. `explicit_attention` is for reading; the model calls `fused_attention`, PyTorch's own
function for the same formula. Where it can, that handles the keys in blocks and stores no (T, S) weights
(FlashAttention).

**Is it working?** `model.attention_weights(tokens)` returns the weights: each row sums to 1, nothing is above the
diagonal, and in a trained model some head attends to the previous token.

Papers: arXiv 1706.03762; grouped queries, arXiv 2305.13245; query-key norm, arXiv 2010.04245; FlashAttention, arXiv
2205.14135. Read before: embeddings.py. Next: feedforward.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.config import ModelConfig
from transformer.embeddings import rotate
from transformer.kv_cache import KVCache


class Context(NamedTuple):
    """What every block must know about the tokens besides their vectors; model.context() prepares it once."""

    positions: Tensor
    """(T,) or (B, T) int64: the position of each token in its text."""
    rotary: Tensor | None = None
    """Cosines and sines for rotary positions, (2, 1, T, D) or (2, B, 1, T, D), which broadcast over the heads."""
    mask: Tensor | None = None
    """Broadcasts to (B, H, T, S): True where a query may attend, or numbers to add to the scores.

    It replaces the causal mask, so it must itself hide later tokens. None: causal."""


def causal_mask(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """Returns (T, S) bool, True where a query may attend; the last query is aligned with the last key.

    >>> causal_mask(2, 4).int().tolist()
    [[1, 1, 1, 0], [1, 1, 1, 1]]
    """
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def attention_scores(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns q k^T / sqrt(D) + mask, (B, H, T, S), for q (B, H, T, D) and k (B, K, S, D), H a multiple of K.

    The mask is as in Context; True stands for 0 and False for -inf.
    """
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)  # (B, H, S, D): neighbouring query heads share a key head
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, H, T, S)
    if mask is None:
        mask = causal_mask(q.shape[-2], k.shape[-2], q.device)  # (T, S)
    return scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns the softmax of the scores, (B, H, T, S): how much each query attends to each key."""
    return attention_scores(q, k, mask).softmax(dim=-1)


def explicit_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention, step by step: arXiv 1706.03762, equation 1.

    q, k and the mask as in attention_scores, v (B, K, S, D). `dropout` is the probability that a weight is dropped;
    the caller passes 0 outside training. Returns the output (B, H, T, D) and the weights before dropout (B, H, T, S).
    """
    weights = attention_weights(q, k, mask)  # (B, H, T, S)
    v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)  # (B, H, S, D)
    return F.dropout(weights, dropout) @ v, weights


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """The same output from PyTorch's fused kernels."""
    # Without a mask, T == S is the kernel's causal case, and a single query may attend to every key. Anything between
    # needs a mask, because the kernel would align the queries with the first keys.
    queries, keys = q.shape[-2], k.shape[-2]
    if mask is None and 1 < queries < keys:
        mask = causal_mask(queries, keys, q.device)
    if mask is not None and mask.is_floating_point():
        mask = mask.to(q.dtype)  # mixed precision (autocast) makes q bfloat16, but not the mask
    is_causal = mask is None and queries == keys
    is_grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=is_causal, enable_gqa=is_grouped
    )


def normalise(x: Tensor, norm: nn.RMSNorm | None) -> Tensor:
    """Returns queries or keys x (..., heads * D) after a norm of width D or heads * D; x itself without one."""
    if norm is None:
        return x
    rows = x.unflatten(-1, (-1, *norm.normalized_shape))  # (..., heads, D) or (..., 1, heads * D)
    return norm(rows.type_as(norm.weight)).flatten(-2).type_as(x)  # in mixed precision (autocast) norms are float32


class CausalSelfAttention(nn.Module):
    """Multi-head attention of a text to itself; x (B, T, C) -> (B, T, C).

    With a `cache`, queries also attend to the keys and values of earlier calls. `layer` is this module's index in it.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_heads, config.kv_heads, config.head_dim
        self.widths = [config.num_heads * self.head_dim] + 2 * [config.kv_heads * self.head_dim]  # of q, k and v
        self.qkv = nn.Linear(config.d_model, sum(self.widths), bias=config.has_qkv_bias)  # three linear maps in one
        head = self.head_dim
        norms = {"none": (0, 0), "head": (head, head), "all": self.widths[:2]}[config.qk_norm]  # widths of two norms
        self.q_norm, self.k_norm = (nn.RMSNorm(width, eps=config.norm_eps) if width else None for width in norms)
        self.out = nn.Linear(self.widths[0], config.d_model, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)
        self.attend = fused_attention  # an attribute, so that kernels/ can put a faster version in its place

    def forward(self, x: Tensor, context: Context, cache: KVCache | None = None) -> Tensor:
        q, k, v = self.project(x, context.rotary)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)  # (B, K, S, D), earlier tokens first
        dropout = self.dropout.p if self.training else 0.0
        gathered = self.attend(q, k, v, context.mask, dropout)  # (B, H, T, D)
        x = gathered.transpose(1, 2).flatten(2)  # (B, T, H D): the heads side by side
        return self.dropout(self.out(x))

    def project(self, x: Tensor, rotary: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Returns q (B, H, T, D) and k, v (B, K, T, D), q and k rotated if positions are rotary."""
        projected = self.qkv(x)  # (B, T, (H + 2K) D): all queries, then all keys, then all values
        q, k, v = projected.split(self.widths, dim=-1)  # (B, T, H D), (B, T, K D), (B, T, K D)
        q, k = normalise(q, self.q_norm), normalise(k, self.k_norm)  # unchanged without qk_norm
        # Cut into heads: one text of T vectors for each head.
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in (q, k, v))  # (B, H or K, T, D)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        return q, k, v
