r"""Embeddings: from token ids to vectors that also say where each token stands.

**The problem.** A token id is a name, not a quantity: id 300 is not "three times" id 100. And attention, which
does the mixing later on, compares vectors pairwise and would treat "dog bites man" and "man bites dog" as the
same set of words. So the model needs, for each token, a vector that can carry meaning, and something that tells
position 0 from position 5.

**Tokens.** A table with one learned row of C numbers for each of V ids. Looking a token up is taking a row:

    tokens (B, T)  --rows of a (V, C) table-->  x (B, T, C)

It equals multiplying a one-hot vector by the table, at none of the cost. The same table, read the other way,
can score which token comes next (*tied* embeddings, see model.py): a vector close to a token's row scores high.

**Positions**, four ways; `position` in the config chooses one.

*learned* (GPT-2): a second table with a row for each position, added to x. Nothing is assumed and nothing is
known about positions beyond the last row. This project's default: simplest to read, and the context is fixed.

*sinusoidal* (Vaswani et al.): the same sum, but with a fixed table of waves. Pair i of position p holds

    sin(p / 10000^(2i/C)),  cos(p / 10000^(2i/C))

like the hands of many clocks, from one turn in 6 tokens to one in 60,000. A shift by k tokens turns every hand
by a fixed angle, whatever p is, so "k tokens back" is the same linear map everywhere. By hand, C = 4:

>>> [[round(n, 2) for n in row] for row in sinusoidal_table(3, 4).tolist()]
[[0.0, 1.0, 0.0, 1.0], [0.84, 0.54, 0.01, 1.0], [0.91, -0.42, 0.02, 1.0]]

*rotary* (RoPE): nothing is added to x. Inside attention each query and key is cut into pairs of numbers, and the
pair i of the token at position p is turned by the angle p / theta^(2i/D). A dot product only sees the angle
between two vectors, so the score of a query at p and a key at q depends on p - q alone:

    (R_p q) . (R_q k) = q . (R_(q-p) k)

>>> angles = rotary_table(8, 4, 10_000.0)
>>> q, k = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, -1.0, 2.0, 0.0])
>>> score = lambda i, j: round(float(rotate(q, angles[:, i]) @ rotate(k, angles[:, j])), 3)
>>> score(5, 3) == score(3, 1) == score(7, 5), score(5, 3) == score(5, 4)
(True, False)

*alibi*: no position vectors at all; each head lowers a score by its own slope times the distance (attention.py
adds it). Slopes fall geometrically, so that some heads see a few tokens and others far back:

>>> alibi_slopes(4).tolist()
[0.25, 0.0625, 0.015625, 0.00390625]

**Cost.** The token table has V*C numbers: 25.7M of the default model's 30.4M. Looking up moves B*T*C numbers.
**Chosen.** No scaling of the token vectors by sqrt(C): with an initial spread of 0.02 for both tables and a norm
at the entrance of every block, it changes nothing. Whatever the kind, the model refuses to read beyond
max_seq_len: waves and rotations exist there, but a model never trained there has no use for them.
**Is it working?** Shuffle the words of a prompt: with any kind of position the next-token probabilities change.

Papers: learned positions, GPT-2 (Radford et al. 2019); sinusoidal, arXiv 1706.03762; rotary, arXiv 2104.09864;
ALiBi, arXiv 2108.12409; tied embeddings, arXiv 1608.05859. Read next: attention.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from transformer.config import ModelConfig


class Embeddings(nn.Module):
    """Token vectors, plus position vectors for the kinds of position that add them.

    tokens (B, T) int64, positions (T,) or (B, T) int64 -> (B, T, C).
    """

    sinusoids: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.d_model)
        self.position = nn.Embedding(config.max_seq_len, config.d_model) if config.position == "learned" else None
        sinusoidal = config.position == "sinusoidal"
        table = sinusoidal_table(config.max_seq_len, config.d_model) if sinusoidal else None  # (max_seq_len, C)
        self.register_buffer("sinusoids", table, persistent=False)  # follows from the config, so no checkpoint has it
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
    frequencies = 10_000.0 ** (-torch.arange(0, d_model, 2).double() / d_model)  # (C/2,)
    angles = torch.arange(max_len).double()[:, None] * frequencies  # (max_len, C/2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2).float()  # (max_len, C)


def rotary_table(max_len: int, head_dim: int, theta: float) -> Tensor:
    """Returns the cosines and sines of every rotation angle, (2, max_len, D) float32.

    Number i is paired with number i + D/2, as in Llama, so each angle occurs twice. The paper pairs neighbours instead;
    that is a fixed reordering of the columns, which the learned projections absorb.
    """
    frequencies = theta ** (-torch.arange(0, head_dim, 2).double() / head_dim)  # (D/2,)
    angles = torch.arange(max_len).double()[:, None] * frequencies  # (max_len, D/2)
    angles = torch.cat([angles, angles], dim=-1)  # (max_len, D)
    return torch.stack([angles.cos(), angles.sin()]).float()  # (2, max_len, D)


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
