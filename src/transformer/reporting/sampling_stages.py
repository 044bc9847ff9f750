"""The distribution after each filter of sampling.py, one after another, for tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from transformer.config import SamplingConfig
from transformer.loss import at_least_float32
from transformer.sampling import (
    is_greedy,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalise_repetition,
    scale_by_temperature,
)

STAGES = ("softmax", "repetition_penalty", "greedy", "temperature", "top_k", "top_p", "min_p")
"""The names of all stages in their order; the settings switch most of them off."""


def stages(logits: Tensor, sampling: SamplingConfig, text: Tensor | None = None) -> list[tuple[str, Tensor]]:
    """Returns a name and a distribution (..., V): of softmax alone, and after each filter that the settings switch on.

    The last distribution equals logits_to_probs(logits, sampling, text). Raises ValueError as that does.

    >>> [name for name, probs in stages(torch.zeros(5), SamplingConfig("top_p", temperature=0.7, top_p=0.9))]
    ['softmax', 'temperature 0.7', 'top_p 0.9']
    """
    s = sampling
    filters: dict[str, Callable[[Tensor], Tensor]] = {  # in the order of sampling.filter_logits
        "repetition_penalty": lambda x: penalise_repetition(x, text, s.repetition_penalty),
        "temperature": lambda x: scale_by_temperature(x, 0 if is_greedy(s) else s.temperature),
        "top_k": lambda x: keep_top_k(x, s.top_k) if "top_k" in s.strategy else x,
        "top_p": lambda x: keep_top_p(x, s.top_p) if "top_p" in s.strategy else x,
        "min_p": lambda x: keep_min_p(x, s.min_p),
    }
    logits = at_least_float32(logits)
    found = [("softmax", logits.softmax(-1))]
    for name, apply in filters.items():
        filtered = apply(logits)
        if filtered is logits:  # this filter is off
            continue
        if name == "temperature" and is_greedy(sampling):
            return [*found, ("greedy", filtered.softmax(-1))]  # one token is left
        logits = filtered
        found.append((f"{name} {getattr(sampling, name):g}", logits.softmax(-1)))
    return found


def entropy_bits(probs: Tensor) -> float:
    """Returns the entropy of probs (V,) in bits: 0 if one token is certain, log2 V if all are equally likely.

    2 to this power is the number of equally likely tokens with the same entropy.
    """
    return abs(float(torch.special.entr(probs).sum())) / math.log(2)  # abs: never -0.0
