r"""The learning-rate schedule: warm up, then glide down.

**The problem.** One step size does not suit a whole run. At the start the weights are random, gradients are large and
point everywhere, and the optimizer's averages rest on a handful of batches: full steps now can throw the model into a
region that it never leaves. At the end the model is near a minimum, and full steps bounce it from side to side.

**The idea.** Climb in a straight line to the full rate over the first few steps (*warm-up*), then follow half a wave of
the cosine down to a small share of it:

    rate ^
    peak |    /\__                       warm-up, w steps:   peak * (s + 1) / w
         |   /    \__                    after it:           low + (peak - low) * (1 + cos(pi * t)) / 2
         |  /        \__                                     t from 0 to 1 over the remaining steps
    low  | /            \____            after the end:      low = min_lr_ratio * peak
         +--------------------> step s

The first step already moves (s + 1, not s: a rate of 0 would waste it). The cosine reaches low just after the last
step, for the same reason, and stays there if a run goes on; a plain cosine would climb again. With 2 warm-up steps of
6:

>>> settings = OptimizerConfig(learning_rate=1.0, warmup_fraction=0.34, min_lr_ratio=0.1)
>>> [round(lr_scale(step, 6, settings), 3) for step in range(8)]
[0.5, 1.0, 0.914, 0.689, 0.411, 0.186, 0.1, 0.1]

**Two others.** *constant* stays at the peak after the warm-up: for trying things out, where no end is known. *wsd*,
warm-up, stable, decay, stays there too and comes down in a straight line over the last decay_fraction of the steps.
Until the decay begins, a run can be made longer without regret:

>>> settings = OptimizerConfig(schedule="wsd", warmup_fraction=0.25, min_lr_ratio=0.0, decay_fraction=0.5)
>>> [round(lr_scale(step, 8, settings), 2) for step in range(9)]
[0.5, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]

**Why a cosine?** It lingers near the peak, where progress is fastest, and near the end, where noise settles, and it
has no corner. The form matters less than the fact that the rate comes down: most of the final gain appears in the
last third. Cost: the length of the run must be known beforehand.
**Chosen.** The schedule is a pure function of the step: nothing to save, nothing that can get out of step on resuming.
It is a share of the peak, so that several optimizers with different peaks follow one curve.
**Is it working?** The learning rate stands in every metric line. A loss that spikes in the first hundred steps asks
for a longer warm-up; a loss that is still falling steeply at the end asks for more steps or a higher peak.

Papers: warm-up, arXiv 1706.02677; cosine, arXiv 1608.03983; warm-up, stable, decay, arXiv 2404.06395. Read before:
optimizer.py. Next: training_utils.py.
"""

from __future__ import annotations

import math

from transformer.config import OptimizerConfig


def lr_scale(step: int, total_steps: int, settings: OptimizerConfig) -> float:
    """Returns the share of the peak learning rate for optimizer step `step`, counted from 0 of total_steps."""
    warmup = round(settings.warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "constant":
        return 1.0
    fall = total_steps - warmup  # steps on the way down, the first of which is a little down already
    if settings.schedule == "wsd":
        fall = min(fall, max(1, round(settings.decay_fraction * total_steps)))
    done = min(1.0, max(0, step - (total_steps - fall) + 1) / max(1, fall + 1))
    share = (1 + math.cos(math.pi * done)) / 2 if settings.schedule == "cosine" else 1 - done
    return settings.min_lr_ratio + (1 - settings.min_lr_ratio) * share
