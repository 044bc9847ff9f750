r"""Dropout: noise against learning by heart.

**The problem.** A model that sees a text several times can memorise it: some unit comes to answer for one particular
phrase, and the text is predicted well without being understood.

**The idea.** While training, set each number to zero with probability p and multiply the others by 1 / (1 - p), so that
the expected value stays the same. No unit can rely on any other being there; what is learnt is spread over many. In
generation and evaluation nothing is dropped, and nothing needs to be rescaled.

>>> _ = torch.manual_seed(0)
>>> dropped = dropout(torch.ones(10_000), 0.25)
>>> sorted({round(float(number), 3) for number in dropped}), 0.98 < float(dropped.mean()) < 1.02
([0.0, 1.333], True)

**Cost.** One pass, and one random decision a number. On CPUs PyTorch draws each decision alone, which
shows in the time of a small model's step. Here one 64-bit draw makes four decisions of 16 bits each: p is met
to 1/65,536, and the numbers kept are divided by the share that is really kept.
**Is it working?** With p > 0 train loss is higher than without, and validation loss of a text seen often is lower. For
a text seen once, 0 is best.

Paper: Srivastava et al. 2014, Dropout; arXiv 1207.0580. Used by embeddings.py, attention.py and feedforward.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DECISIONS = 2**16
"""Outcomes of a 16-bit draw."""


class Dropout(nn.Dropout):
    """Drops numbers with probability p in training mode, and none otherwise; any shape."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training else x


def dropout(x: Tensor, p: float) -> Tensor:
    """Returns x, same shape, with each number zeroed with probability p (0 <= p < 1) and the others scaled up.

    Draws from torch's global generator, so that a seed fixes it and a checkpoint can restore it.
    """
    if p == 0:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():  # the compiler draws in its own way
        return F.dropout(x, p)
    dropped = min(round(p * DECISIONS), DECISIONS - 1)  # outcomes that mean: drop
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    draws = draws.view(torch.int16)[: x.numel()].view(x.shape)  # four decisions a draw
    scale = (draws >= dropped - DECISIONS // 2).to(x.dtype)
    return x * scale.mul_(DECISIONS / (DECISIONS - dropped))
