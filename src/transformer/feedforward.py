r"""The feed-forward network: computing with what attention has gathered.

**The problem.** Attention moves information between tokens, but each head only adds up values, which are linear in the
vectors that the head reads. Something must *compute* with that sum: distinguish "bank" next to "river" from "bank" next
to "loan".

**The idea.** The same small network is applied to every token: widen to d_ff numbers, apply an activation function f,
project back to C numbers.

    FFN(x) = W_down f(W_up x + b_up) + b_down            W_up (d_ff, C), W_down (C, d_ff)

Each hidden unit detects a pattern and answers with a vector: row j of W_up is the pattern, f passes on how strongly x
matches it, and column j of W_down is added to the token in that proportion. With the usual d_ff = 4 C these matrices
are two thirds of a block's weights (8 C^2 against attention's 4 C^2), and much of what a model has memorised is in
them.

**The activation function**, without which W_down W_up would be a single matrix:

    relu(x)      = max(0, x)
    gelu(x)      = x * Phi(x)                 Phi: the standard normal distribution function
    gelu_tanh(x) = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))     GPT-2's approximation of gelu

gelu is a smooth relu, which leaves a gradient for small negative inputs. By hand, Phi(1) = 0.841, so gelu(1) = 0.841
and gelu(-1) = -1 * 0.159:

>>> import torch
>>> [round(float(F.gelu(torch.tensor(x))), 3) for x in (-1.0, 0.0, 1.0, 3.0)]
[-0.159, 0.0, 0.841, 2.996]

**SwiGLU** is not a function of one number but another network. A third matrix computes a *gate*, which multiplies the
first projection (biases left out):

    FFN(x) = W_down (silu(W_gate x) * (W_up x))         silu(x) = x / (1 + e^-x)

Three matrices with d_ff = 8/3 C have as many weights as two with 4 C; the config does not change d_ff for you.

**Cost.** 2 T C d_ff multiply-adds (3 T C d_ff with swiglu), whatever the length of the context.
**Is it working?** With relu, count the hidden units that are 0 for every token of many batches. They no longer learn. A
few are usual; if most units are like that, the learning rate was probably too high.

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
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        gated = config.activation == "swiglu"
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=config.bias) if gated else None
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            hidden = self.activation(self.up(x))  # (B, T, d_ff)
        else:
            hidden = self.activation(self.gate(x)) * self.up(x)  # (B, T, d_ff)
        return self.dropout(self.down(hidden))  # (B, T, C)
