r"""The feed-forward network: what a token makes of what it has gathered.

**The problem.** Attention moves information between tokens, but what it hands over is a weighted sum of values, and a
stack of sums stays a sum. Something must *compute* with the mix: tell "bank" beside "river" from "bank" beside "loan".

**The idea.** The same small network for every token, on its own: widen to d_ff numbers, bend, return to C numbers.

    FFN(x) = W2 f(W1 x + b1) + b2            W1 (d_ff, C), W2 (C, d_ff)

Each hidden unit is a detector and a reply: row j of W1 is a pattern it looks for, f lets through how strongly the
pattern is there, and column j of W2 is what it then adds to the token. Much of what a model knows sits here; at the
usual d_ff = 4 C this is two thirds of a block's weights (8 C^2 against attention's 4 C^2).

**The bend f**, without which W2 W1 would collapse into one matrix:

    relu(x)      = max(0, x)
    gelu(x)      = x * Phi(x)                 Phi: the share of a standard normal below x
    gelu_tanh(x) = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))     GPT-2's approximation of it
    swiglu       = silu(W1 x) * (W3 x)        silu(x) = x / (1 + e^-x); a gate times a second projection

gelu is a relu with a soft corner: x is kept to the degree that it stands out among normal values, and small negative
inputs still carry a gradient. By hand, Phi(1) = 0.841, so gelu(1) = 0.841 and gelu(-1) = -0.159:

>>> import torch
>>> [round(float(F.gelu(torch.tensor(x))), 3) for x in (-1.0, 0.0, 1.0, 3.0)]
[-0.159, 0.0, 0.841, 2.996]

swiglu lets one projection decide how much of another passes. It has three matrices, so equal size needs
d_ff = 8/3 C; set d_ff yourself, nothing is scaled in silence.

**Cost.** 2 T C d_ff multiply-adds, three halves of that with swiglu; no dependence on the context's length.
**Chosen.** gelu by default, as in GPT-2 but exact. Not chosen: mixtures of experts, which need a lesson of their own.
**Is it working?** Count hidden units that are never positive over a batch of text: a few are usual, most is a sign
that the learning rate was too high. A model without this part still learns, but far worse.

Papers: arXiv 1706.03762, section 3.3; GELU, arXiv 1606.08415; SwiGLU, arXiv 2002.05202; as key-value memories, arXiv
2012.14913. Read before: attention.py. Next: block.py.
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
    "swiglu": F.silu,  # applied to the gate
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
