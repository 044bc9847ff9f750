r"""Gradient accumulation: the gradient of a large batch, on a machine that holds a small one.

**The problem.** The gradient of one row is mostly noise: it says what would help this row. Averaged over many rows the
noise shrinks (its variance falls as 1/rows) and what is common to the text remains. But a micro-batch is as large as
memory allows, and that may be 8 rows where 128 would be right.

**The idea.** The loss is a sum over tokens, so its gradient is a sum too. Add up the gradients of several
micro-batches, and only then let the optimizer step:

    loss       = (1/N) * sum over micro-batches k of sum over their tokens (nats)       N: tokens of all together
    d loss     = sum over k of  d [ nats_k / N ]

    micro-batch 1   forward, backward      .grad  = d nats_1 / N
    micro-batch 2   forward, backward      .grad += d nats_2 / N
      ...
    all done        clip, step, .grad = None

PyTorch's backward() adds to .grad anyway: accumulation is a matter of not clearing it. The result is the gradient of
the whole batch to rounding, at the memory of one micro-batch.

**Divide by the right number.** Dividing each micro-batch's mean by their count is right only if all hold equally many
tokens. Where some targets are padding, it weighs tokens unequally. Here the true count N of the whole step divides
every sum. By hand: one weight w = 0, "loss" w per token, micro-batches of 3 and 1 tokens: each token counts 1/4:

>>> w = torch.nn.Parameter(torch.tensor(0.0))
>>> class Objective(torch.nn.Module):
...     def forward(self, tokens, targets): return w * targets.sum(), (targets > 0).sum()
>>> ones = lambda *row: (torch.tensor([row]), torch.tensor([row]))
>>> nats, tokens = accumulate_gradients(Objective(), [ones(1, 1, 1), ones(1, 0, 0)], token_count=4)
>>> float(w.grad), int(tokens)
(1.0, 4)

**Cost.** Time as for the large batch: each micro-batch is computed in full. Memory: one micro-batch's activations and
one gradient. A larger effective batch takes fewer, better steps for the same text; past the point where the noise is
small beside the gradient itself, more rows buy nothing (arXiv 1812.06162 says how to find that point).

**Measured** on the demo's model, in micro-batches of 1,024 tokens (benchmarks/results/accumulation.md). Noise and
gradient are equally strong in a third of a micro-batch at step 20, and in 13 of them at step 300: the later in a run,
the more rows a step can use. Over the same short text, each at the best rate tried, 1 micro-batch a step ended at 2.08
bits a byte, 4 at 2.09, 16 at 2.25: there, many rough steps beat few true ones.

**Several processes.** A large batch is split over W processes in the same way: each adds up the gradients of its own
micro-batches, and after the last one the sums of all are added (docs/several-machines.md). N then counts the tokens of
all processes, who tell one another before the first backward().

**Clipping.** Now and then a batch has a gradient many times the usual length, and one step along it can undo hundreds.
Its length over all weights together is measured, and where it exceeds grad_clip it is scaled down to that, its
direction kept.

**Chosen.** The objective that distributed wrappers wrap is a module of its own (model and loss), so that gradient hooks
fire and the model's forward keeps returning logits.
**Is it working?** Two halves accumulated equal the whole batch; the metric grad_norm is the length before clipping.

Papers: clipping, arXiv 1211.5063; noise and batch size, arXiv 1812.06162. Read before: loss.py, optimizer.py. Next:
trainer.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from transformer.config import IGNORE
from transformer.data.document_mask import document_mask
from transformer.distributed.processes import gradients_stay
from transformer.model import DecoderOnlyTransformer


class Objective(nn.Module):
    """What training minimises: (tokens, targets) (B, T) int64 -> summed nats, tokens counted.

    Given the id of end-of-text, which begins a document, attention stays within documents.
    """

    def __init__(self, model: DecoderOnlyTransformer, end_of_text: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.end_of_text = end_of_text

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        mask = None if self.end_of_text is None else document_mask(tokens, self.end_of_text)  # (B, 1, T, T)
        return self.model.loss(tokens, targets, mask)


def count_targets(micro_batches: Iterable[tuple[Tensor, Tensor]]) -> int:
    """Returns how many targets of all the micro-batches count."""
    return sum(int((targets != IGNORE).sum()) for _, targets in micro_batches)


def accumulate_gradients(
    objective: nn.Module,
    micro_batches: Iterable[tuple[Tensor, Tensor]],
    token_count: int,
    world_size: int = 1,
    scale: Tensor | float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Adds the gradient of (sum of nats) / token_count over all micro-batches to every parameter's .grad.

    Where Dist.parallel() has wrapped the objective, the sum is over the micro-batches of all `world_size` processes,
    and so must `token_count` be. `scale` multiplies all gradients: float16 needs it (runtime/precision.py). Returns the
    summed nats and the tokens counted, of this process, scalars on the device, so that nothing waits for it here.
    """
    totals: list[tuple[Tensor, Tensor]] = []
    upcoming = iter(micro_batches)
    batch = next(upcoming, None)
    while batch is not None:
        (tokens, targets), batch = batch, next(upcoming, None)
        # Gradients travel between processes once a step, after the last micro-batch.
        with nullcontext() if batch is None else gradients_stay(objective):
            nats, count = objective(tokens, targets)
            # The wrapper leaves the mean over the processes: world_size times that is the sum.
            (nats / (max(1, token_count) / world_size) * scale).backward()
        totals.append((nats.detach(), count))
    return torch.stack([nats for nats, _ in totals]).sum(), torch.stack([count for _, count in totals]).sum()


def clip_gradients(parameters: Iterable[nn.Parameter], longest: float) -> Tensor:
    """Scales all gradients so that their joint norm is at most `longest` (0: as they are); returns the norm before."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, longest if longest > 0 else torch.inf)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of a sharded model: of all processes' rows
