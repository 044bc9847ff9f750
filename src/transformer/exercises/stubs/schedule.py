"""Exercise: the learning-rate schedule. Lesson: src/transformer/scheduler.py.

n = total_steps, w = warmup; a fraction of the peak rate for each step s, counted from 0.
"""

from __future__ import annotations


def lr_scale(step: int, total_steps: int, warmup: int, low: float) -> float:
    """Returns the learning rate of a step as a fraction of the peak: a linear warm-up, then a cosine down to low.

    The last of the `warmup` steps has the peak (warmup may be 0). From step total_steps on, the rate is `low`.
    """
    raise NotImplementedError
