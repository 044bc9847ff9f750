r"""Sampling: choosing the next token from the model's probabilities.

**The problem.** The model gives every token a probability; a text needs one token at each step. Always taking the most
likely token (*greedy*) is safe and dull: it falls into loops, because the most likely text is not a typical text.
Sampling from the full distribution is varied but derails: each of 100,000 unlikely tokens has a negligible
probability, but together they do not, and one nonsense token spoils the rest.

**The idea.** Filter the logits, then sample from what is left. Each filter sets the logits of the tokens it removes to
-inf, so softmax gives them probability 0 and normalises the others.

- *Repetition penalty* lowers the logits of tokens that the text already contains. It breaks loops, but hurts text in
  which words must return, such as code and tables.
- *Temperature* divides the logits by t: probabilities become p^(1/t), normalised. Below 1 likely tokens gain, above 1
  the distribution flattens. Temperature 0 is defined as greedy.
- *top-k* keeps the k most likely tokens. k = 50 is too many after "United States of" and too few after "I".
- *top-p* (nucleus) keeps the smallest set of most likely tokens whose probabilities sum to at least p. The set adapts:
  one token where the model is certain, hundreds where it is not.
- *min-p* keeps the tokens with at least m times the probability of the most likely one. It still works at a high
  temperature, where the nucleus grows large but unlikely tokens stay far below the top.

By hand, with probabilities 1/2, 1/4, 1/8, 1/8:

>>> logits = torch.tensor([8.0, 4.0, 2.0, 2.0]).log()
>>> probs = lambda **settings: [round(p, 2) for p in logits_to_probs(logits, SamplingConfig(**settings)).tolist()]
>>> probs(strategy="multinomial")
[0.5, 0.25, 0.12, 0.12]
>>> probs(strategy="multinomial", temperature=0.5)                          # squared: 64, 16, 4, 4 of 88
[0.73, 0.18, 0.05, 0.05]
>>> probs(strategy="top_k", top_k=2), probs(strategy="top_p", top_p=0.6)    # both keep 1/2 and 1/4
([0.67, 0.33, 0.0, 0.0], [0.67, 0.33, 0.0, 0.0])
>>> probs(strategy="multinomial", min_p=0.3)                                # at least 0.3 * 1/2 = 0.15
[0.67, 0.33, 0.0, 0.0]
>>> probs(strategy="greedy")
[1.0, 0.0, 0.0, 0.0]

**Cost.** O(V log V) for the sort in top-p, O(V) for the rest; kernels/top_p.py avoids the sort.
**Not chosen.** Beam search: it searches for the most likely whole text, which suits translation but makes dull stories.
**Is it working?** `main.py demo-sampling` shows the tokens that each strategy keeps.

Papers: top-p, and why the most likely text is dull, arXiv 1904.09751; top-k, arXiv 1805.04833; min-p, arXiv 2407.01082;
repetition penalty, arXiv 1909.05858. Read before: loss.py. Next: generation.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from transformer.config import SamplingConfig

Filters = Sequence[tuple[str, Callable[[Tensor, SamplingConfig, Tensor | None], Tensor]]]


def penalise_repetition(logits: Tensor, text: Tensor | None, penalty: float) -> Tensor:
    """Lowers the logits (..., V) of the ids in text (..., T) int64, once however often an id occurs.

    >>> penalise_repetition(torch.tensor([3.0, 1.0, -1.0]), text=torch.tensor([0, 2, 0]), penalty=1.5).tolist()
    [2.0, 1.0, -1.5]
    """
    if penalty == 1:
        return logits
    if text is None:
        raise ValueError(f"repetition_penalty={penalty:g} needs the text so far: pass text=")
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, text.expand(*logits.shape[:-1], -1), True)  # (..., V)
    lowered = torch.where(logits < 0, logits * penalty, logits / penalty)  # dividing would raise a negative logit
    return torch.where(seen, lowered, logits)


def scale_by_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divides logits (..., V) by the temperature; 0 keeps only the largest."""
    if temperature == 1:
        return logits
    if temperature == 0:
        return torch.full_like(logits, -math.inf).scatter(-1, logits.argmax(-1, keepdim=True), 0.0)
    return logits / temperature


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Sets all logits (..., V) below the top_k-th largest to -inf. Logits equal to it stay."""
    kth = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]  # (..., 1)
    return logits.masked_fill(logits < kth, -math.inf)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Keeps the fewest largest logits (..., V) whose probabilities sum to at least top_p; the others become -inf.

    Tokens as likely as the last one kept stay too, since a sort puts equal numbers in an arbitrary order.
    """
    if top_p >= 1:
        return logits
    probs = logits.softmax(-1)  # (..., V)
    ranked = probs.sort(descending=True).values  # (..., V), most likely first
    inside = ranked.cumsum(-1) - ranked < top_p  # (..., V): the tokens before this one do not reach top_p
    smallest = ranked.masked_fill(~inside, math.inf).amin(-1, keepdim=True)  # (..., 1)
    return logits.masked_fill(probs < smallest, -math.inf)


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """Sets all logits (..., V) to -inf whose probability is below min_p times the largest one."""
    if min_p == 0:
        return logits
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(min_p), -math.inf)


# In this order, as in most other tools. A filter that the settings switch off returns its argument.
FILTERS: Filters = (
    ("repetition_penalty", lambda logits, s, text: penalise_repetition(logits, text, s.repetition_penalty)),
    ("temperature", lambda logits, s, text: scale_by_temperature(logits, 0 if is_greedy(s) else s.temperature)),
    ("top_k", lambda logits, s, text: keep_top_k(logits, s.top_k) if "top_k" in s.strategy else logits),
    ("top_p", lambda logits, s, text: keep_top_p(logits, s.top_p) if "top_p" in s.strategy else logits),
    ("min_p", lambda logits, s, text: keep_min_p(logits, s.min_p)),
)


def at_least_float32(numbers: Tensor) -> Tensor:
    """Returns 16-bit numbers as float32, in which sums over a vocabulary are accurate enough."""
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


def is_greedy(sampling: SamplingConfig) -> bool:
    """Whether the settings always choose the most likely token, so that nothing is random."""
    return sampling.strategy == "greedy" or sampling.temperature == 0


def filter_logits(
    logits: Tensor,
    sampling: SamplingConfig,
    text: Tensor | None = None,
    filters: Filters = FILTERS,
) -> Tensor:
    """Applies all filters to logits (..., V), in float32 or wider. text (..., T) int64 is for repetition_penalty only.

    Raises ValueError if the text is needed and missing.
    """
    logits = at_least_float32(logits)
    for _, apply in filters:
        logits = apply(logits, sampling, text)
    return logits


def logits_to_probs(logits: Tensor, sampling: SamplingConfig, text: Tensor | None = None) -> Tensor:
    """Returns the distribution to sample from: logits (..., V) -> probabilities (..., V), float32 or wider."""
    return filter_logits(logits, sampling, text).softmax(-1)


def inverse_cdf(probs: Tensor, uniform: Tensor) -> Tensor:
    """Turns uniform random numbers (N,) from [0, 1) into ids (N,), drawn from the rows of probs (N, V).

    The probabilities divide the line from 0 to 1 into V intervals; the id is the interval that the number falls into:

    >>> inverse_cdf(torch.tensor([0.5, 0.25, 0.25]).expand(4, -1), torch.tensor([0.0, 0.49, 0.5, 0.99])).tolist()
    [0, 0, 1, 2]

    One number a row, where torch.multinomial takes one for every token: so the ids that a row draws do not depend on
    the rows before it. Never returns an id of probability 0. Raises ValueError for a row without probabilities.
    """
    # Cut to whole multiples of 2^-52, so that sums are exact integers: a float sum could differ with batch size or
    # device, and so the draw.
    cdf = (at_least_float32(probs) * 2**52).long().cumsum(-1)  # (N, V) int64
    total = cdf[:, -1].cpu()  # (N,), about 2^52
    if bool((total <= 0).any()):
        row = int((total <= 0).nonzero()[0])
        raise ValueError(f"row {row} has no probabilities to draw from: its logits are not finite numbers, or all -inf")
    point = (uniform.to("cpu", torch.float64) * total).long()  # (N,), below the total
    return torch.searchsorted(cdf, point.to(cdf.device)[:, None], right=True)[:, 0]


def uniform_numbers(count: int, generator: torch.Generator | None = None) -> Tensor:
    """Returns `count` random numbers from [0, 1) on the CPU, in float64, drawn on the device of the generator.

    None: torch's global CPU generator. With a CPU generator a seed gives the same text on every device, apart from
    rounding.
    """
    device = torch.device("cpu") if generator is None else generator.device
    dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
    return torch.rand(count, generator=generator, dtype=dtype, device=device).to("cpu", torch.float64)


def sample(
    logits: Tensor,
    sampling: SamplingConfig,
    generator: torch.Generator | None = None,
    text: Tensor | None = None,
    filters: Filters = FILTERS,
) -> Tensor:
    """Draws the next token of each row: logits (..., V) -> (...,) int64. Greedy settings use no random number.

    text (..., T) int64 is for repetition_penalty only. Raises ValueError as filter_logits and inverse_cdf do.
    """
    logits = filter_logits(logits, sampling, text, filters)
    if is_greedy(sampling):
        return logits.argmax(-1)
    rows = logits.softmax(-1).reshape(-1, logits.shape[-1])  # (N, V)
    return inverse_cdf(rows, uniform_numbers(len(rows), generator)).reshape(logits.shape[:-1])
