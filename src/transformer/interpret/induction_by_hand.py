r"""An induction head set by hand: a model of two layers whose every weight has a known purpose.

**The problem.** A tool that explains a trained model gives an answer that nobody can check, because nobody knows the
model's algorithm. So the tools of this package are first tried on a model with an algorithm that we put in.

**The idea.** The text "S a b c a" (S: the start of a text) was "b" the last time after "a", so predict "b". Two heads
do that together, and neither could alone. Each token's vector has four parts, one number for each possible value:

    token (V)   position (P)   previous token (V)   predicted token (V)          C = 3 V + P numbers
    from the embeddings        written by head A    written by head B

    position      0  1  2  3  4
    token         S  a  b  c  a
    A, layer 0       S  a  b  c    attends to position i - 1 and copies its token to "previous token"
    B, layer 1             b       attends from 4, token "a", to 2, previous token "a"; copies token "b" to "predicted"

*Head A, previous token.* The query of position i is the direction of position i - 1, the key of position j that of
position j. So the score is high for j = i - 1 only.
*Head B, induction.* The query is the token, the key the previous token. If no key matches, the head rests at S, whose
key fits every query half as well and whose value is zero.

The query weights are large (SHARPNESS), so that softmax gives almost all weight to the best key. The vectors consist of
ones and zeros, so an RMS norm (block.py) divides them by sqrt(number of ones / C); the weight of each norm is this
number and undoes it. All other heads and the feed-forward networks are zero.

By hand, S is 0, and 5 is followed by 3:

>>> model = induction_model()
>>> tokens = torch.tensor([[0, 5, 3, 7, 5]])
>>> model(tokens)[0, -1].round().tolist()                                    # CERTAINTY for token 3
[0.0, 0.0, 0.0, 10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
>>> [weights[0, head, -1].round().tolist() for weights, (_, head) in zip(model.attention_weights(tokens), [A, B])]
[[0.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]]

**What it does not show.** A trained model's induction heads are less sharp, share their vectors with everything else,
come in several copies, and match more than one token. That they compose in this way is what the papers found.

Papers: the two heads, Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; in trained models, arXiv
2209.11895. Read before: attention.py, block.py, heads.py. Next: lens.py.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.attention import CausalSelfAttention
from transformer.config import ModelConfig
from transformer.model import DecoderOnlyTransformer

START = 0
"""The token that every text begins with."""
A, B = (0, 1), (1, 0)
"""Layer and head of the previous-token head and of the induction head."""
SHARPNESS = 40.0
"""The score of the best key; the resting place of head B has half of it, all other keys 0."""
CERTAINTY = 10.0
"""The logit of the predicted token; the others are 0."""


@torch.no_grad()
def induction_model(vocab_size: int = 12, max_seq_len: int = 16) -> DecoderOnlyTransformer:
    """Returns the model, in eval mode; its texts begin with START. It has two layers of two heads."""
    V, P = vocab_size, max_seq_len
    C = 3 * V + P
    model = DecoderOnlyTransformer(
        ModelConfig(
            vocab_size=V, d_model=C, num_heads=2, num_layers=2, head_width=max(V, P), d_ff=4, max_seq_len=P,
            dropout=0.0, norm="rmsnorm", norm_eps=1e-12, activation="relu", bias=False, tie_embeddings=False,
        )
    )  # fmt: skip
    for parameter in model.parameters():
        parameter.zero_()
    # The rows of the identity: the direction of each value, in C dimensions.
    token, position, previous, predicted = torch.eye(C).split([V, P, V, V])  # (V, C), (P, C), (V, C), (V, C)
    model.embeddings.token.weight.copy_(token)
    assert model.embeddings.position is not None
    model.embeddings.position.weight.copy_(position)
    first, second = model.layers
    first.attention_norm.weight.fill_(math.sqrt(2 / C))  # token and position: two ones
    second.attention_norm.weight.fill_(math.sqrt(3 / C))  # and the previous token
    model.final_norm.weight.fill_(math.sqrt(4 / C))  # and the predicted token
    # Row i - 1 of the query reads position i, row j of the key position j: they meet at j = i - 1.
    set_head(first.attention, A[1], query=position[1:], key=position, value=token, output=previous)
    rest = token[START] / 2  # read by every row of the key: whatever the query, START fits half as well as a match
    value = token.clone()
    value[START] = 0  # resting writes nothing
    set_head(second.attention, B[1], query=token, key=previous + rest, value=value, output=predicted)
    model.head.weight.copy_(CERTAINTY * predicted)
    return model.eval()


def set_head(
    attention: CausalSelfAttention, head: int, *, query: Tensor, key: Tensor, value: Tensor, output: Tensor
) -> None:
    """Sets the weights of one head, in place: row n of query, key, value (N, C) is what its number n reads, and row n
    of output (N, C) the direction in which its number n is written; N at most D. Scores are multiplied by SHARPNESS."""
    D = attention.head_dim
    rows = [F.pad(part, (0, 0, 0, D - len(part))) for part in (query, key, value, output)]  # (D, C) each
    for start, part in zip((0, attention.widths[0], sum(attention.widths[:2])), rows[:3], strict=True):
        attention.qkv.weight[start + head * D : start + (head + 1) * D] = part
    attention.qkv.weight[head * D : (head + 1) * D] *= SHARPNESS * math.sqrt(D)  # attention divides by sqrt(D)
    attention.out.weight[:, head * D : (head + 1) * D] = rows[3].T
