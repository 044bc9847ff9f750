"""The distribution after each filter of sampling.py, one after another, for tables and pictures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from transformer.config import SamplingConfig
from transformer.sampling import FILTERS, at_least_float32, is_greedy

STAGES = ("softmax", "repetition_penalty", "greedy", "temperature", "top_k", "top_p", "min_p")
"""The names of all stages in their order; the settings switch most of them off."""


def stages(logits: Tensor, sampling: SamplingConfig, text: Tensor | None = None) -> list[tuple[str, Tensor]]:
    """Returns a name and a distribution (..., V): of softmax alone, and after each filter that the settings switch on.

    The last distribution equals logits_to_probs(logits, sampling, text). Raises ValueError as that does.

    >>> [name for name, probs in stages(torch.zeros(5), SamplingConfig("top_p", temperature=0.7, top_p=0.9))]
    ['softmax', 'temperature 0.7', 'top_p 0.9']
    """
    logits = at_least_float32(logits)
    found = [("softmax", logits.softmax(-1))]
    for name, apply in FILTERS:
        filtered = apply(logits, sampling, text)
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
