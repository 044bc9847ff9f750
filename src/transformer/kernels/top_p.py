"""Top-p without sorting the vocabulary.

sampling.keep_top_p sorts all V probabilities, although the nucleus usually holds a few tokens. Here only the 64 most
likely tokens are selected and summed; eight times as many if some row does not reach top_p with them, and so on. Only a
nearly flat distribution ends in a full sort:

    V = 100,277    1st try: 64    2nd: 512    3rd: 4,096    4th: 32,768    then all

`topk` selects in O(V), a sort takes O(V log V). The sums run over the same numbers in the same order as in the plain
version, so both keep the same tokens; tests/kernels/test_top_p.py compares them.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from torch import Tensor

from transformer import sampling
from transformer.config import SamplingConfig

FIRST_TRY, GROWTH = 64, 8


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """As sampling.keep_top_p, for logits (..., V)."""
    if top_p >= 1:
        return logits
    probs, count = logits.softmax(-1), FIRST_TRY  # (..., V)
    while True:
        count = min(count, logits.shape[-1])
        ranked = probs.topk(count).values  # (..., count), most likely first
        inside = ranked.cumsum(-1) - ranked < top_p  # (..., count)
        # A nucleus is complete if a token after it was selected too; tokens of probability 0 add nothing.
        if count == logits.shape[-1] or not bool((inside & (ranked > 0))[..., -1].any()):
            break
        count *= GROWTH
    smallest = ranked.masked_fill(~inside, math.inf).amin(-1, keepdim=True)  # (..., 1)
    return logits.masked_fill(probs < smallest, -math.inf)


def filter_logits(logits: Tensor, settings: SamplingConfig, text: Tensor | None = None) -> Tensor:
    """As sampling.filter_logits, with this top-p."""
    if "top_p" not in settings.strategy:
        return sampling.filter_logits(logits, settings, text)
    strategy: Literal["top_k", "multinomial"] = "top_k" if "top_k" in settings.strategy else "multinomial"
    logits = sampling.filter_logits(logits, dataclasses.replace(settings, strategy=strategy, min_p=0.0), text)
    return sampling.keep_min_p(keep_top_p(logits, settings.top_p), settings.min_p)
