r"""The learning-rate schedule: warm up, then decay.

**The problem.** One step size does not suit a whole run. At the start the weights are random, gradients are large and
inconsistent, and the optimizer's moment estimates rest on a handful of batches: full steps can move the model into a
region from which it does not recover. At the end the model is near a minimum, and full steps overshoot it.

**The idea.** Raise the rate in a straight line to its peak over the first few steps (*warm-up*), then lower it along
half a period of a cosine to a small fraction of the peak:

    rate ^
    peak |    /\__                       warm-up, w steps:   peak * (s + 1) / w
         |   /    \__                    after it:           low + (peak - low) * (1 + cos(pi * t)) / 2
         |  /        \__                                     t = (s - w + 1) / (n - w + 1) of n steps
    low  | /            \____            after the end:      low = min_lr_ratio * peak
         +--------------------> step s

The first step already moves: s + 1, not s, since a rate of 0 would waste it. For the same reason the cosine reaches low
just after the last step. It stays there if a run is extended; a plain cosine would rise again. With 2 warm-up steps of
6 in all:

>>> settings = OptimizerConfig(learning_rate=1.0, warmup_fraction=0.34, min_lr_ratio=0.1)
>>> [round(lr_scale(step, 6, settings), 3) for step in range(8)]
[0.5, 1.0, 0.914, 0.689, 0.411, 0.186, 0.1, 0.1]

**Two others.** *constant* stays at the peak after the warm-up: for experiments whose length is not known. *wsd*
(warm-up, stable, decay) stays there too, then falls in a straight line over the last decay_fraction of the steps. Until
the decay begins, a run can be extended without loss:

>>> settings = OptimizerConfig(schedule="wsd", warmup_fraction=0.25, min_lr_ratio=0.0, decay_fraction=0.5)
>>> [round(lr_scale(step, 8, settings), 2) for step in range(9)]
[0.5, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]

**Why a cosine?** It stays long near the peak, where progress is fastest, and long near the end, where noise averages
out. The shape matters less than that the rate falls. Cost: the length of the run must be known in advance.
**Why a pure function of the step?** There is nothing to save, and a resumed run cannot get a different rate. It returns
a fraction of the peak, so optimizers with different peaks follow one curve.

**Is it working?** Every line of metrics has the learning rate. If the loss spikes in the first hundred steps, try a
longer warm-up; if it still falls steeply at the end, more steps or a higher peak.

Papers: warm-up, arXiv 1706.02677; cosine, arXiv 1608.03983; warm-up, stable, decay, arXiv 2404.06395. Read before:
optimizer.py. Next: training_utils.py.
"""

from __future__ import annotations

import math

from transformer.config import OptimizerConfig


def lr_scale(step: int, total_steps: int, settings: OptimizerConfig) -> float:
    """Returns the learning rate of optimizer step `step` (from 0) of total_steps, as a fraction of the peak."""
    warmup = round(settings.warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / warmup  # the last warm-up step reaches the peak
    if settings.schedule == "constant":
        return 1.0
    decay = total_steps - warmup  # steps of the decay; the first is already a little below the peak
    if settings.schedule == "wsd":
        decay = min(decay, max(1, round(settings.decay_fraction * total_steps)))
    done = min(1.0, max(0, step - (total_steps - decay) + 1) / max(1, decay + 1))  # t above: 0 before the decay
    height = (1 + math.cos(math.pi * done)) / 2 if settings.schedule == "cosine" else 1 - done  # from 1 down to 0
    return settings.min_lr_ratio + (1 - settings.min_lr_ratio) * height
