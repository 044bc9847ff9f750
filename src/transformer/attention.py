r"""Attention: how a token gathers what it needs from the tokens before it.

**The problem.** In "the cat sat because it was tired", the vector of "it" must come to mean "cat". A fixed window
cannot do that, since the word sought may be anywhere; a recurrent state must squeeze everything into one vector.

**The idea.** Each token sends out a *query* (what am I looking for?), shows a *key* (what do I have?) and carries
a *value* (what do I hand over?). Each is a linear map of its vector. A query is compared with all keys up to its
own position by dot products, softmax turns the scores into shares that sum to 1, and the token receives the mix
of values in those shares:

    attention(Q, K, V) = softmax(Q K^T / sqrt(D) + mask) V

*Why sqrt(D)?* The dot product of two vectors of D independent numbers of variance 1 has variance D. Unscaled,
wide heads would have large scores, and a softmax of large scores is nearly one-hot, with next to no gradient.

*Why a mask?* The model learns to predict token t+1 at position t, at all positions at once. A query that saw
token t+1 would have nothing to learn. Scores of later keys become -inf, which softmax turns into exactly 0:

             key 0   1   2   3
    query 0      x   .   .   .        x: may look
    query 1      x   x   .   .        .: -inf, share 0
    query 2      x   x   x   .
    query 3      x   x   x   x

By hand: two tokens, D = 1, queries [1, 2], keys [0, ln 3], values [10, 20]. Query 0 sees only key 0 and gets 10.
Query 1 scores [0, 2 ln 3], so its shares are [1, 9] / 10 and it gets 0.1 * 10 + 0.9 * 20 = 19:

>>> column = lambda *numbers: torch.tensor(numbers).view(1, 1, -1, 1)
>>> out, weights = explicit_attention(column(1.0, 2.0), column(0.0, math.log(3)), column(10.0, 20.0))
>>> out.flatten().tolist(), weights[0, 0].mul(10).round().tolist()
([10.0, 19.0], [[10.0, 0.0], [1.0, 9.0]])

**Heads.** One softmax makes one mix. H heads of width D = C/H run side by side on slices of the projections, one
perhaps following syntax while another finds the last mention; a final linear map blends them. With fewer key and
value heads than query heads (*grouped queries*), neighbouring query heads share them, and the cache shrinks.

**Prefill and decode: two modes, one path.** *Prefill* reads T prompt tokens at once: T queries, T keys, a product
of matrices that keeps the processor busy. *Decode* writes one token: one query against S cached keys, so memory
speed decides. Both are "T new queries against S keys so far": query i stands at position S - T + i and sees the
keys up to there. The mask is aligned to the *bottom right*; SDPA's is_causal aligns top left and is therefore
right only when T == S. kv_cache.py holds the keys and values between calls.

             key 0   1   2   3   4          S = 5 so far, T = 2 new
    query 0      x   x   x   x   .          stands at position 3
    query 1      x   x   x   x   x          stands at position 4

**Documents in one row.** Training rows are packed (dataset.py): an end-of-text stands between documents, and a causal
query sees beyond it. `document_mask` (DataConfig's mask_documents) ends the view there: a query sees keys of its own
document only, and an end-of-text begins one. So nothing of a document is predicted from the one before, not even its
first token; and generation without a prompt starts from end-of-text, as documents then do. As a target it belongs to
what stands before it: a document's last token predicts it, seeing that document. Positions count on through the row,
hence only relative ones (rotary, alibi) make a document look as if it stood alone. Off by default: where documents are
longer than rows, few rows hold two, and on a GPU FlashAttention takes no such mask.
benchmarks/document_mask.py measures what it costs. arXiv 2402.13991 reports better models with it; Llama 3's authors
(arXiv 2407.21783) saw little effect but at very long contexts.

**Cost** for B = 1: 4 T C^2 multiply-adds for the projections, and 2 T S C for scores and mix. Time grows with the
square of the context, memory too if the (T, S) weights are kept. `fused_attention` computes the same without ever
storing them, by walking over keys in blocks (FlashAttention).

**Chosen.** Two functions with one contract: `explicit_attention` to read and to look inside, `fused_attention` to
run; tests hold them equal in output and gradient. One matrix for queries, keys and values: one large product is
faster than three. Not chosen: additive attention (slower, no better), local windows (a further setting to learn).
**Is it working?** `model.attention_weights(tokens)` returns the shares; each row sums to 1, nothing lies above the
diagonal, and in a trained model some head looks at the previous token.

Papers: attention and heads, arXiv 1706.03762; grouped queries, arXiv 2305.13245; FlashAttention, arXiv 2205.14135.
Read before: embeddings.py. Next: kv_cache.py, feedforward.py.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.config import ModelConfig
from transformer.embeddings import rotate
from transformer.kernels.cpu_linear import Linear
from transformer.kernels.dropout import Dropout
from transformer.kernels.dropout import dropout as drop
from transformer.kv_cache import KVCache


def causal_mask(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """Returns (T, S) bool, True where a query may look, the last query aligned with the last key.

    >>> causal_mask(2, 4).int().tolist()
    [[1, 1, 1, 0], [1, 1, 1, 1]]
    """
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def document_mask(tokens: Tensor, end_of_text: int) -> Tensor:
    """Returns (B, 1, T, T) bool for tokens (B, T) int64: causal, and True only within a document.

    An end-of-text begins the next document. By hand, with 0 for end-of-text, the documents 5 and 0 7 8:

    >>> document_mask(torch.tensor([[5, 0, 7, 8]]), end_of_text=0).int().tolist()
    [[[[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]]]]
    """
    document = (tokens == end_of_text).cumsum(1)  # (B, T): how many documents began up to each token
    same = document[:, None, :, None] == document[:, None, None, :]  # (B, 1, T, T)
    return same & causal_mask(tokens.shape[1], tokens.shape[1], tokens.device)


def padding_mask(padding: Tensor, queries: int, keys: int) -> Tensor:
    """Returns (B, 1, T, S) bool: causal, and True only for keys right of the row's filler, padding (B,) int64.

    Filler sees itself, since softmax needs something to share out; nobody else does. By hand, one filler of three:

    >>> padding_mask(torch.tensor([1]), queries=3, keys=3).int().tolist()
    [[[[1, 0, 0], [0, 1, 0], [0, 1, 1]]]]
    """
    key = torch.arange(keys, device=padding.device)
    query = key[keys - queries :, None]  # (T, 1)
    text = key >= padding[:, None, None, None]  # (B, 1, 1, S)
    return (key <= query) & text | (key == query)


def explicit_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention, step by step: arXiv 1706.03762, equation 1.

    q (B, H, T, D); k and v (B, K, S, D), H a multiple of K. mask broadcasts to (B, H, T, S): True where a query may
    look, or numbers to add to the scores; None is causal. `dropout` is the share of weights dropped.
    Returns out (B, H, T, D) and weights (B, H, T, S), each row summing to 1.
    """
    groups = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(groups, dim=1)  # (B, H, S, D)
    v = v.repeat_interleave(groups, dim=1)  # (B, H, S, D)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, H, T, S)
    if mask is None:
        mask = causal_mask(q.shape[-2], k.shape[-2], q.device)
    scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    weights = scores.softmax(dim=-1)  # (B, H, T, S)
    out = drop(weights, dropout) @ v  # (B, H, T, D)
    return out, weights


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """Same arguments and result as explicit_attention, without the weights: PyTorch's fused kernels."""
    if dropout and q.device.type == "cpu":  # no fused kernel drops weights there
        return explicit_attention(q, k, v, mask, dropout)[0]
    queries, keys = q.shape[-2], k.shape[-2]
    is_causal = mask is None and queries == keys
    if mask is None and 1 < queries < keys:  # a single query sees every key and needs no mask
        mask = causal_mask(queries, keys, q.device)
    if mask is not None and mask.is_floating_point():
        mask = mask.to(q.dtype)
    return F.scaled_dot_product_attention(
        q, k, v, mask, dropout, is_causal, enable_gqa=q.shape[1] != k.shape[1]
    )  # (B, H, T, D)


class CausalSelfAttention(nn.Module):
    """Multi-head attention of a text with itself; x (B, T, C) -> (B, T, C).

    `rotary` (2, T, D) turns queries and keys; `mask` is as in explicit_attention; with a `cache`, the keys and
    values of earlier calls are seen too. `layer` says which part of the cache is this module's.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.head_dim = config.num_heads, config.kv_heads, config.head_dim
        width = (config.num_heads + 2 * config.kv_heads) * config.head_dim
        self.qkv = Linear(config.d_model, width, bias=config.bias)
        self.out = Linear(config.d_model, config.d_model, bias=config.bias)
        self.dropout = Dropout(config.dropout)
        self.recorded: list[Tensor] | None = None  # a list here collects the weights; see model.attention_weights

    def forward(
        self,
        x: Tensor,
        rotary: Tensor | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        q, k, v = self.project(x)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)  # (B, K, S, D), earlier tokens first
        dropout = self.dropout.p if self.training else 0.0
        if self.recorded is None:
            mixed = fused_attention(q, k, v, mask, dropout)  # (B, H, T, D)
        else:
            mixed, weights = explicit_attention(q, k, v, mask, dropout)
            self.recorded.append(weights)
        mixed = mixed.transpose(1, 2).flatten(2)  # (B, T, C), heads side by side
        return self.dropout(self.out(mixed))  # type: ignore[no-any-return]

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns q (B, H, T, D) and k, v (B, K, T, D), the heads cut from one product."""
        heads = self.qkv(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, H + 2K, T, D)
        q, k, v = heads.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        return q, k, v
