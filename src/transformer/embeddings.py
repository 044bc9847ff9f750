r"""Embeddings: from token ids to vectors that carry meaning and position.

**The problem.** A token id is a name, not a quantity: id 300 is not "three times" id 100. And an attention layer, the
next file, treats the tokens that a position may see as a set: at the full stop it cannot distinguish "dog bites man."
from "man bites dog." So each token needs a vector that can carry meaning, and information about its position.

**Letters** of shapes, in all files: B texts in a batch, T tokens in each, V = vocab_size, C = d_model. In attention:
H = num_heads, D = C / H (head_dim; head_width changes it), K key and value heads, S keys.

**Tokens.** A table has one learned row of C numbers for each of the V ids, and a token's vector is its row:

    tokens (B, T)  --rows of a (V, C) table-->  x (B, T, C)

**Positions**, four ways; `position` in the config chooses one.

*learned* (GPT-2, the default): a second table with a row for each position, added to x. Simple, but there are no rows
beyond max_seq_len. (The other kinds could be computed for any position; this model still refuses longer texts.)

*sinusoidal* (Vaswani et al.): a fixed table is added. Pair i of position p holds

    sin(p / 10000^(2i/C)),  cos(p / 10000^(2i/C))

like the hands of many clocks, the fastest with a period of 6 tokens, the slowest, at C = 256, with one of 58,000. A
shift by d tokens rotates each hand by a fixed angle, so "d tokens back" is the same linear map at every position. C = 4
(sin 1 = 0.84, cos 1 = 0.54):

>>> [[round(n, 2) for n in row] for row in sinusoidal_table(3, 4).tolist()]
[[0.0, 1.0, 0.0, 1.0], [0.84, 0.54, 0.01, 1.0], [0.91, -0.42, 0.02, 1.0]]

The other two act inside attention: read them after attention.py.

*rotary* (RoPE): nothing is added. Attention compares a query q with a key k by their dot product. Before that, the
numbers of each are paired, number i with number i + D/2, and pair i of the token at position p is rotated by

    p / theta^(2i/D)  radians          theta: rope_theta, 10,000

Call the rotation of all pairs R_p. Rotating both vectors by the same angles does not change their dot product. So for a
query at position m and a key at position n, rotate both back by m: only the difference remains:

    (R_m q) . (R_n k)  =  q . (R_(n-m) k)

By hand, one pair (D = 2) and q = k = [1, 0]: the score is cos(m - n), and cos 2 = -0.416, cos 1 = 0.54:

>>> angles, q = rotary_table(8, 2, 10_000.0), torch.tensor([1.0, 0.0])
>>> score = lambda m, n: round(float(rotate(q, angles[:, m]) @ rotate(q, angles[:, n])), 3)
>>> score(5, 3), score(3, 1), score(5, 4)
(-0.416, -0.416, 0.54)

Two variants, to skip at first. With `rotary_fraction` (GPT-NeoX) only the first N = fraction * D numbers are rotated,
as N/2 pairs by p / theta^(2i/N); the others carry no position. `rope_scaling` extends a trained model to longer
texts: it lowers the frequencies, so that the angles of new, larger distances are some that the model has seen.
*linear* divides all frequencies by the same factor; *llama3* (Llama 3.1) only those of the slow pairs, because the
fast ones distinguish neighbours.

*alibi*: nothing is added to the vectors here either. Each head lowers a score by its own slope times the distance
(through the mask), so that heads with large slopes attend to a few tokens and heads with small slopes to many:

>>> alibi_slopes(4).tolist()
[0.25, 0.0625, 0.015625, 0.00390625]

**Cost.** The token table has V * C numbers, most of a small model's parameters; the lookup itself is cheap.
**Is it working?** In a model of one block, shuffle all tokens but the last: the last prediction changes. If you zero
the position table, it does not. (With more blocks the causal mask alone reveals some of the order.)

Papers: learned, GPT-2 (Radford et al. 2019); sinusoidal, arXiv 1706.03762; rotary, arXiv 2104.09864, and its scaling,
2306.15595 (linear), 2407.21783 (llama3); ALiBi, arXiv 2108.12409. Read before: config.py. Next: attention.py.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.config import ModelConfig

INIT_STD = 0.02
"""Standard deviation of fresh weights; model.py has the reasons."""


class Embeddings(nn.Module):
    """Token vectors, plus position vectors for the kinds of position that add them.

    tokens (B, T) int64, positions (T,) or (B, T) int64 -> (B, T, C).
    """

    sinusoids: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.d_model)
        self.position = nn.Embedding(config.max_seq_len, config.d_model) if config.position == "learned" else None
        table = None
        if config.position == "sinusoidal":
            # Sines and cosines have a root mean square of 1 / sqrt(2). Scaled to INIT_STD they cannot drown the tokens.
            table = INIT_STD * math.sqrt(2) * sinusoidal_table(config.max_seq_len, config.d_model)  # (max_seq_len, C)
        self.register_buffer("sinusoids", table, persistent=False)  # moves with the model, is not trained or saved
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        x = self.token(tokens)  # (B, T, C)
        if self.position is not None:
            x = x + self.position(positions)  # (T, C), the same for every row of the batch, or (B, T, C)
        if self.sinusoids is not None:
            x = x + self.sinusoids[positions]  # as above
        return self.dropout(x)


def sinusoidal_table(max_len: int, d_model: int) -> Tensor:
    """Returns the sinusoidal encoding of arXiv 1706.03762, section 3.5: (max_len, C) float32, sines in even columns."""
    angles = angle_table(max_len, frequencies(d_model, 10_000.0))  # (max_len, C/2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2).float()  # (max_len, C)


def frequencies(width: int, theta: float) -> Tensor:
    """Returns 1 / theta^(2i/width), the radians that pair i rotates per position, (width/2,) float64."""
    return theta ** (-torch.arange(0, width, 2).double() / width)


def angle_table(max_len: int, frequencies: Tensor) -> Tensor:
    """Returns the angle of each pair at each position, (max_len, pairs) float64: float32 is inexact for thousands."""
    return torch.arange(max_len).double()[:, None] * frequencies


def rotary_table(max_len: int, head_dim: int, theta: float, fraction: float = 1.0, scaling: str = "") -> Tensor:
    """Returns the cosines and sines of every rotation angle, (2, max_len, D) float32.

    Each angle occurs twice, for the numbers i and i + D/2 of a pair, as in Llama. The paper pairs neighbours: a fixed
    reordering, which the learned projections absorb. `fraction` and `scaling` as in ModelConfig.
    """
    width = round(fraction * head_dim)  # N
    scaled = scale(frequencies(width, theta), scaling)  # (N/2,)
    angles = angle_table(max_len, F.pad(scaled, (0, (head_dim - width) // 2)))  # (max_len, D/2): 0 for the other pairs
    return torch.stack([angles.cos(), angles.sin()]).float().repeat(1, 1, 2)  # (2, max_len, D)


def scale(frequencies: Tensor, scaling: str) -> Tensor:
    """Returns the frequencies that rope_scaling makes of these; llama3 is the formula of Llama 3.1 (arXiv 2407.21783).

    llama3 divides by FACTOR if a pair makes less than LOW rotations in the ORIGINAL context, not at all if it makes
    more than HIGH, and by a number in between if it makes between LOW and HIGH.
    """
    kind, *numbers = scaling.split(":")
    if not kind:
        return frequencies
    factor, *others = map(float, numbers)
    slow = torch.ones_like(frequencies)  # the part of each frequency that is divided
    if kind == "llama3":
        low, high, original = others
        rotations = original * frequencies / (2 * math.pi)
        slow = ((high - rotations) / (high - low)).clamp(0, 1)
    return frequencies * (1 - slow + slow / factor)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotates each pair of x (..., T, D) by its angle; table (2, ..., T, D) holds cosines and sines."""
    cos, sin = table.to(x.dtype)
    a, b = x.chunk(2, dim=-1)  # (..., T, D/2) each: the first and the second numbers of all pairs
    return x * cos + torch.cat([-b, a], dim=-1) * sin  # (a cos - b sin, b cos + a sin)


def alibi_slopes(num_heads: int) -> Tensor:
    """Returns each head's penalty for a distance of one token, (H,) float32; arXiv 2108.12409, section 3.

    If H is a power of two, the slopes are 2^(-8/H), 2^(-16/H), ... down to 2^-8. Otherwise the authors take the series
    of the next lower power of two and add every second slope of the next higher one.
    """
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    between = [2 ** (-4 * (2 * i + 1) / power) for i in range(power)]
    return torch.tensor(slopes + between[: num_heads - power])


def alibi_bias(slopes: Tensor, queries: int, keys: int) -> Tensor:
    """Returns the numbers that ALiBi adds to the scores, (H, T, S): -slope * distance, or -inf for a later key."""
    query = torch.arange(keys - queries, keys, device=slopes.device)[:, None]  # (T, 1): the last query is the last key
    distance = query - torch.arange(keys, device=slopes.device)  # (T, S), negative for a later key
    bias = -slopes[:, None, None] * distance  # (H, T, S)
    return bias.masked_fill(distance < 0, -math.inf)
