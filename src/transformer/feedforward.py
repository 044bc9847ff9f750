r"""The feed-forward network: computing with what attention has gathered.

**The problem.** Attention moves information between tokens, but each head only adds up values, which are linear in the
vectors it reads. Something must *compute* with that sum: distinguish "bank" next to "river" from "bank" next to "loan".

**The idea.** The same small network is applied to every token: widen to d_ff numbers, apply an activation function f,
project back to C numbers.

    FFN(x) = W2 f(W1 x + b1) + b2            W1 (d_ff, C), W2 (C, d_ff)

Each hidden unit is a detector with an answer: row j of W1 is a pattern, f passes on how strongly x matches it, and
column j of W2 is added to the token in that proportion. With the usual d_ff = 4 C these matrices are two thirds of a
block's weights (8 C^2 against attention's 4 C^2), and much of what a model has memorised is in them.

**The activation function**, without which W2 W1 would be a single matrix:

    relu(x)      = max(0, x)
    gelu(x)      = x * Phi(x)                 Phi: the standard normal distribution function
    gelu_tanh(x) = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))     GPT-2's approximation of gelu

gelu is a smooth relu, which leaves a gradient for small negative inputs. By hand, Phi(1) = 0.841, so gelu(1) = 0.841
and gelu(-1) = -1 * 0.159:

>>> import torch
>>> [round(float(F.gelu(torch.tensor(x))), 3) for x in (-1.0, 0.0, 1.0, 3.0)]
[-0.159, 0.0, 0.841, 2.996]

**SwiGLU** is not a function of one number but another network. A third matrix W3 computes a *gate*, which is multiplied
by the first projection:

    FFN(x) = W2 (silu(W3 x) * (W1 x))         silu(x) = x / (1 + e^-x), biases left out

With d_ff = 8/3 C, three matrices have as many weights as two with 4 C.

**Cost.** 2 T C d_ff multiply-adds (3 with swiglu), whatever the length of the context.
**Is it working?** Count the hidden units whose input W1 x + b1 is negative for every token of a batch: with relu they
are always 0 and learn nothing. A few are usual; if most units are like that, the learning rate was too high.

Papers: arXiv 1706.03762, section 3.3; GELU, arXiv 1606.08415; SwiGLU, arXiv 2002.05202; feed-forward layers as
key-value memories, arXiv 2012.14913. Read before: attention.py. Next: block.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from transformer.config import ModelConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "swiglu": F.silu,  # applied to the gate only
}


class FeedForward(nn.Module):
    """The same two-layer network for each token on its own; x (B, T, C) -> (B, T, C)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)  # W1
        gated = config.activation == "swiglu"
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=config.bias) if gated else None  # W3
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.bias)  # W2
        self.dropout = nn.Dropout(config.dropout)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            hidden = self.activation(self.up(x))  # (B, T, d_ff)
        else:
            hidden = self.activation(self.gate(x)) * self.up(x)  # (B, T, d_ff)
        return self.dropout(self.down(hidden))  # (B, T, C)
