r"""The loss: how wrong the predictions are, as one number.

**The problem.** At each position the model gives every one of V tokens a score, its logit. Training needs one number
that says how wrong all these scores are, and that has a gradient.

The *target* of position t is the token at t+1: for the row "a b c d", the tokens are [a, b, c] and the targets
[b, c, d]. The data loader makes this shift, not the model.

**The idea.** Softmax maps the logits z to probabilities. The loss of a position is the *surprisal* of the token y that
really came next: minus the logarithm of its probability, in nats (base e; one nat is 1.44 bits):

    p_v = exp(z_v) / sum_u exp(z_u)        loss = -ln p_y = ln(sum_u exp(z_u)) - z_y

A model that gives each token 1/V has a loss of ln V: 11.5 nats for cl100k_base, 5.5 for bytes. By hand,
logits [0, ln 3] give p = [1/4, 3/4], so the loss is ln 4 if token 0 came, and ln(4/3) if token 1 came:

>>> import torch
>>> hidden, weight = torch.ones(1, 1), torch.tensor([[1.0], [3.0]]).log()         # hidden weight^T = [0, ln 3]
>>> [round(float(next_token_loss(hidden, weight, torch.tensor([y]))[0]), 4) for y in (0, 1)]
[1.3863, 0.2877]

**The gradient** with respect to a logit is the predicted probability minus the right answer. So a likely token that did
not come is pushed down by its probability, and the token that came is pulled up by one minus its probability:

    d loss / d z_v = p_v - [v = y]         [v = y]: 1 for the token that came, 0 for the others

**Sum and count, not the mean.** Batches differ in the number of tokens that count, and a mean of their means would give
the tokens of a small batch more weight. Sums and counts add up over batches, devices and documents; the mean is one
division at the end.

**Cost.** 6 N V C floating-point operations for N positions, forward and backward: with V = 100,277 that is 83% of a
training step of the default model. The table of logits has N * V numbers, 411 MB in float32 for 8 rows of 128. That is
why the function takes hidden vectors and weight instead of logits: the version in kernels/ returns the same numbers
without ever holding the whole table.

**Is it working?** The first loss is near ln V. If it is much higher, the initialisation is wrong.

Papers: Shannon 1951, Prediction and Entropy of Printed English; softmax with cross-entropy as in arXiv 1706.03762.
Read before: model.py. Next: sampling.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.config import IGNORE


def next_token_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the summed cross-entropy in nats, float32 or wider, and the number of targets counted, int64; both ().

    hidden (N, C): vectors after the final norm; weight (V, C): the output matrix; targets (N,) int64; IGNORE marks
    positions that do not count.
    """
    logits = at_least_float32(F.linear(hidden, weight))  # (N, V)
    nats = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")  # ()
    return nats, (targets != IGNORE).sum()


def at_least_float32(numbers: Tensor) -> Tensor:
    """Returns 16-bit numbers as float32: 8 significant bits of bfloat16 are too few for sums over a vocabulary."""
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))
