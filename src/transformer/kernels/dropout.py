r"""Dropout with four random decisions for each 64-bit draw, on a CPU.

Dropout sets each number to zero with probability p during training and multiplies the others by 1 / (1 - p), so that
the expected value stays the same; arXiv 1207.0580. No unit can rely on another one being there, which reduces
overfitting.

>>> _ = torch.manual_seed(0)
>>> dropped = dropout(torch.ones(10_000), 0.25)
>>> sorted({round(float(number), 3) for number in dropped}), 0.98 < float(dropped.mean()) < 1.02
([0.0, 1.333], True)

PyTorch draws one random number for each decision, and on a CPU that is a visible part of a small model's step. Here one
64-bit draw makes four decisions of 16 bits each: p is exact to 1/65,536, and the numbers that are kept are divided by
the fraction that is really kept. On other devices, and in compiled code, F.dropout runs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DECISIONS = 2**16
"""Outcomes of a 16-bit draw."""


class Dropout(nn.Dropout):
    """nn.Dropout with the dropout of this file; any shape."""

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
