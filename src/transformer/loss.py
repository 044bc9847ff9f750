r"""The loss: how wrong the predictions are, as one number.

**The problem.** At each position the model gives every one of V tokens a score, its *logit*. Training needs one number
that says how wrong all these scores are, and that has a gradient.

The *target* of position t is the token at t+1: for the row "a b c d", the tokens are [a, b, c] and the targets
[b, c, d]. The data loader makes this shift, not the model.

**The idea.** Softmax maps the logits z to probabilities. The loss of a position is the *surprise* at the token y
that really came next: minus the logarithm of its probability, in nats (base e; one nat is 1.44 bits):

    p_v = exp(z_v) / sum_u exp(z_u)        loss = -ln p_y = ln(sum_u exp(z_u)) - z_y

A model that gives each token 1/V pays ln V: 11.5 nats for cl100k_base, 5.5 for bytes. Training starts there. By hand,
logits [0, ln 3] give p = [1/4, 3/4], so the two tokens cost ln 4 and ln(4/3):

>>> import torch
>>> hidden, weight = torch.ones(1, 1), torch.tensor([[1.0], [3.0]]).log()
>>> [round(float(next_token_loss(hidden, weight, torch.tensor([y]))[0]), 4) for y in (0, 1)]
[1.3863, 0.2877]

**The gradient** with respect to a logit is the predicted probability minus the right answer. So a likely token that did
not come is pushed down by its probability, and the token that came is pulled up by what its probability lacks:

    d loss / d z_v = p_v - [v = y]         [v = y]: 1 for the token that came, 0 for the others

**Sum and count, not the mean.** Batches differ in the number of tokens that count, and a mean of their means would give
the tokens of a small batch more weight. Sums and counts add up over batches, devices and documents. Whoever needs the
mean divides once, at the end.

**Cost.** 6 N V C floating-point operations for N positions, forward and backward: with V = 100,277 that is 83% of a
training step of the default model. The table of logits is N * V numbers, 411 MB in float32 for 1,024 positions. That is
why kernels/ has a version that never holds the whole table; it returns the same numbers.

**Is it working?** The first loss is near ln V. If it is much higher, the initialisation is wrong.

Papers: Shannon 1951, Prediction and Entropy of Printed English; softmax with cross-entropy as in arXiv 1706.03762.
Read before: model.py. Next: sampling.py.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from transformer.config import IGNORE


def next_token_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the summed cross-entropy in nats, float32 or wider, and the number of targets counted, int64; both ().

    hidden (N, C): vectors after the final norm; weight (V, C): the output matrix; targets (N,) int64; IGNORE marks
    positions that do not count.
    """
    logits = F.linear(hidden, weight)  # (N, V)
    if logits.dtype.itemsize < 4:
        logits = logits.float()  # bfloat16 has 8 significant bits: too few for a sum over V exponentials
    nats = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")  # ()
    return nats, (targets != IGNORE).sum()
