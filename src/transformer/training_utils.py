r"""Gradient accumulation: the gradient of a large batch, on a machine that holds a small one.

**The problem.** The gradient of one row is mostly noise: it says what would help this row. Averaged over many rows, the
noise shrinks (its variance falls as 1/rows) and what the rows have in common remains. But a micro-batch is as large as
memory allows, and that may be 8 rows when 128 would be right.

**The idea.** The loss is a sum over tokens, so its gradient is a sum too. Add up the gradients of several
micro-batches, and only then let the optimizer step:

    loss   = 1/N * sum over micro-batches k of nats_k        N: tokens of all micro-batches together
    d loss = sum over k of d(nats_k / N)                     nats_k: summed loss of micro-batch k

    micro-batch 1   forward, backward      .grad  = d(nats_1 / N)
    micro-batch 2   forward, backward      .grad += d(nats_2 / N)
      ...
    all done        clip, step, .grad = None

PyTorch's backward() adds to .grad anyway, so accumulating means not clearing it. The result is the gradient of the
whole batch up to rounding, in the memory of one micro-batch.

**Divide by the right number.** The mean of the micro-batches' means is the mean over all tokens only if every
micro-batch has equally many. By hand: a model with one weight w = 1 whose loss on a token with target t is w * t, so
d loss / dw = t. Micro-batch 1 has the targets 1, 1, 1; micro-batch 2 has the target 5 and two positions of padding. The
mean over the four tokens is (1 + 1 + 1 + 5) / 4 = 2. The mean of the two means is (1 + 5) / 2 = 3: the token in the
shorter micro-batch would count three times as much as each of the others. So every sum is divided by N, the count of
the whole step:

>>> w = torch.nn.Parameter(torch.tensor(1.0))
>>> class Objective(torch.nn.Module):
...     def forward(self, tokens, targets): return w * targets.clamp(min=0).sum(), (targets != IGNORE).sum()
>>> micro_batches = [(row, row) for row in (torch.tensor([[1, 1, 1]]), torch.tensor([[5, IGNORE, IGNORE]]))]
>>> nats, count = accumulate_gradients(Objective(), micro_batches, divisor=count_targets(micro_batches))
>>> float(w.grad), int(count)
(2.0, 4)

**Clipping.** Now and then a batch has a gradient many times the usual size, and one step along it can undo hundreds.
If the norm over all weights together exceeds grad_clip, the whole gradient is scaled down to that norm, which keeps
its direction.

**Cost.** As much time as the large batch, since each micro-batch is computed in full. A larger effective batch takes
fewer, better steps over the same text. Once the noise is small compared with the gradient itself, more rows gain
nothing (arXiv 1812.06162 says how to find that point; docs/measurements.md has it for the demo's model).

**Is it working?** Two accumulated halves give the gradient of the whole batch; the metric grad_norm is the norm before
clipping. Papers: clipping, arXiv 1211.5063; noise and batch size, arXiv 1812.06162. Read before: loss.py, scheduler.py.
Next: dataset.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from transformer.config import IGNORE
from transformer.data.document_mask import document_mask
from transformer.model import DecoderOnlyTransformer


class Objective(nn.Module):
    """What training minimises: tokens, targets (B, T) int64 -> summed nats (), number of tokens ().

    A module of its own, so that wrappers for several processes see one forward() that ends in the loss. Given the id of
    end-of-text, attention stays within documents (data/document_mask.py).
    """

    def __init__(self, model: DecoderOnlyTransformer, end_of_text: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.end_of_text = end_of_text

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        mask = None if self.end_of_text is None else document_mask(tokens, self.end_of_text)  # (B, 1, T, T)
        return self.model.loss(tokens, targets, mask)


def count_targets(micro_batches: Iterable[tuple[Tensor, Tensor]]) -> int:
    """Returns the number of targets that count, N above: all except padding."""
    return sum(int((targets != IGNORE).sum()) for _, targets in micro_batches)


def accumulate_gradients(
    objective: nn.Module, micro_batches: Iterable[tuple[Tensor, Tensor]], divisor: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Adds the gradient of (summed nats) / divisor over all micro-batches to every parameter's .grad.

    Returns the summed nats () and the number of tokens (). Both stay on the device: reading them here would wait for
    all of its work (trainer.py reads them when it reports).
    """
    nats_so_far, count_so_far = [], []
    for tokens, targets in micro_batches:
        nats, count = objective(tokens, targets)
        (nats / divisor).backward()  # adds to .grad, and frees this micro-batch's activations
        nats_so_far.append(nats.detach())  # the number, without the graph behind it
        count_so_far.append(count)
    return torch.stack(nats_so_far).sum(), torch.stack(count_so_far).sum()


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scales all gradients so that their joint norm is at most max_norm (0: no limit). Returns the norm before, ()."""
    return torch.nn.utils.clip_grad_norm_(parameters, max_norm if max_norm > 0 else torch.inf)
