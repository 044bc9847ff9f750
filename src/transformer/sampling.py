r"""Sampling: choosing the next token from the model's probabilities.

**The problem.** The model gives every token a probability; a text needs one token at each step. Always taking the most
likely token (*greedy*) is safe and dull: it falls into loops, because the most likely text is not a typical text.
Sampling from the full distribution is varied but derails: each of 100,000 unlikely tokens has a negligible probability,
but their sum is not negligible, and one nonsense token spoils the rest.

**The idea.** Filter the logits, then sample from what is left. Each filter sets the logits of the tokens it removes to
-inf, so softmax gives them probability 0 and normalises the others.

- *Repetition penalty* lowers the logits of tokens that the text already contains. It breaks loops, but hurts text in
  which words must recur, such as code and tables.
- *Temperature* divides the logits by t: probabilities become p^(1/t), normalised. Below 1 likely tokens gain, above 1
  the distribution flattens. Temperature 0 is defined as greedy.
- *top-k* keeps the k most likely tokens. k = 50 is too many after "United States of" and too few after "I".
- *top-p* (nucleus) keeps the smallest set of most likely tokens whose probabilities sum to at least p. The set adapts:
  one token where the model is certain, hundreds where it is not.
- *min-p* keeps the tokens with at least m times the probability of the most likely one. It still works at a high
  temperature, where the nucleus grows large but unlikely tokens stay far below the top.

By hand, with probabilities 1/2, 1/4, 1/8, 1/8:

>>> logits = torch.tensor([8.0, 4.0, 2.0, 2.0]).log()
>>> probs = lambda **settings: [round(p, 3) for p in logits_to_probs(logits, SamplingConfig(**settings)).tolist()]
>>> probs(strategy="multinomial")
[0.5, 0.25, 0.125, 0.125]
>>> probs(strategy="multinomial", temperature=0.5)                          # squared: 64, 16, 4, 4 of 88
[0.727, 0.182, 0.045, 0.045]
>>> probs(strategy="top_k", top_k=2), probs(strategy="top_p", top_p=0.6)    # both keep 1/2 and 1/4
([0.667, 0.333, 0.0, 0.0], [0.667, 0.333, 0.0, 0.0])
>>> probs(strategy="multinomial", min_p=0.3)                                # at least 0.3 * 1/2 = 0.15
[0.667, 0.333, 0.0, 0.0]

**Cost.** O(V log V) for the sort in top-p, O(V) for the rest; kernels/top_p.py avoids the sort.
**Not chosen.** Beam search: it searches for the most likely whole text, which suits translation but makes dull stories.
**Is it working?** `main.py demo-sampling` shows the tokens that each strategy keeps.

Papers: top-p, and why the most likely text is dull, arXiv 1904.09751; top-k, arXiv 1805.04833; min-p, arXiv 2407.01082;
repetition penalty, arXiv 1909.05858. Read before: loss.py. Next: generation.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from transformer.categorical import draw, most_likely
from transformer.config import SamplingConfig
from transformer.loss import at_least_float32

Filter = Callable[[Tensor, SamplingConfig, Tensor | None], Tensor]
"""The type of filter_logits."""


def penalise_repetition(logits: Tensor, text: Tensor | None, penalty: float) -> Tensor:
    """Lowers the logits (..., V) of the ids in text (..., T) int64, once however often an id occurs.

    >>> penalise_repetition(torch.tensor([3.0, 1.0, -1.0]), text=torch.tensor([0, 2, 0]), penalty=1.5).tolist()
    [2.0, 1.0, -1.5]
    """
    if penalty == 1:
        return logits
    if text is None:
        raise ValueError(f"repetition_penalty={penalty:g} needs the text so far: pass text=")
    ids = text.expand(*logits.shape[:-1], -1)  # (..., T): one text (T,) serves every row
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, ids, True)  # (..., V)
    lowered = torch.where(logits < 0, logits * penalty, logits / penalty)  # dividing would raise a negative logit
    return torch.where(seen, lowered, logits)


def scale_by_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divides logits (..., V) by the temperature; 0 keeps only the largest."""
    if temperature == 1:
        return logits
    if temperature == 0:
        best = logits.max(-1, keepdim=True)
        return torch.full_like(logits, -math.inf).scatter(-1, best.indices, best.values)
    return logits / temperature


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Sets all logits (..., V) below the top_k-th largest to -inf. Logits equal to it stay."""
    kth = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]  # (..., 1)
    return logits.masked_fill(logits < kth, -math.inf)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Keeps the smallest set of most likely tokens whose probabilities sum to at least top_p; logits (..., V).

    Tokens as likely as the last one kept stay too, since a sort puts equal numbers in an arbitrary order.
    """
    if top_p >= 1:
        return logits
    probs = logits.softmax(-1)  # (..., V)
    ranked = probs.sort(descending=True).values  # (..., V), most likely first
    before = ranked.cumsum(-1) - ranked  # (..., V): the sum of all more likely ones
    smallest = ranked.masked_fill(before >= top_p, math.inf).amin(-1, keepdim=True)  # (..., 1): the last one kept
    return logits.masked_fill(probs < smallest, -math.inf)


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """Sets to -inf all logits (..., V) whose probability is below min_p times the largest one."""
    if min_p == 0:
        return logits
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(min_p), -math.inf)  # in logarithms


def is_greedy(sampling: SamplingConfig) -> bool:
    """Whether the settings always choose the most likely token, so that nothing is random."""
    return sampling.strategy == "greedy" or sampling.temperature == 0


def greedy(logits: Tensor, sampling: SamplingConfig, text: Tensor | None = None) -> Tensor:
    """Returns the most likely token of each row, (...,) int64; of all filters only the repetition penalty matters."""
    return most_likely(penalise_repetition(at_least_float32(logits), text, sampling.repetition_penalty))


def filter_logits(logits: Tensor, sampling: SamplingConfig, text: Tensor | None = None) -> Tensor:
    """Applies all filters to logits (..., V), in float32 or wider. text (..., T) int64 is for repetition_penalty only.

    The order matters: top-p and min-p see the probabilities after the temperature. Raises ValueError if the text is
    needed and missing.
    """
    logits = penalise_repetition(at_least_float32(logits), text, sampling.repetition_penalty)
    logits = scale_by_temperature(logits, 0 if is_greedy(sampling) else sampling.temperature)
    if sampling.strategy in ("top_k", "top_k_top_p"):
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.strategy in ("top_p", "top_k_top_p"):
        logits = keep_top_p(logits, sampling.top_p)
    return keep_min_p(logits, sampling.min_p)


def logits_to_probs(logits: Tensor, sampling: SamplingConfig, text: Tensor | None = None) -> Tensor:
    """Returns the distribution to sample from: logits (..., V) -> probabilities (..., V), float32 or wider."""
    return filter_logits(logits, sampling, text).softmax(-1)


def sample(
    logits: Tensor,
    sampling: SamplingConfig,
    generator: torch.Generator | None = None,
    text: Tensor | None = None,
    filter_with: Filter = filter_logits,
) -> Tensor:
    """Draws the next token of each row: logits (..., V) -> (...,) int64. Greedy settings use no random number.

    text is as in filter_logits. Raises ValueError as that does, and for logits that are not numbers.
    """
    if is_greedy(sampling):
        return greedy(logits, sampling, text)
    logits = filter_with(logits, sampling, text)
    # As torch.multinomial(probs, 1), but a seed gives the same text in any batch and on any device: categorical.py.
    return draw(logits.softmax(-1), generator)
