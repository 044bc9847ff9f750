r"""Sampling: choosing one token from many probabilities.

**The problem.** The model gives every token a probability; a text needs one token at each step. Always taking the
likeliest (*greedy*) is safe and dull: it falls into loops ("the king, and the king, and the king"), for the likeliest
text is not a typical text. Drawing from all probabilities is lively and derails: each of 100,000 unlikely tokens is
negligible, but together they hold some share, and one nonsense token spoils what follows.

**The idea.** Reshape the distribution, then draw from it.

*Temperature* divides the logits by a number t before softmax. Probabilities become p^(1/t), normalised: below 1 the
likely gain, above 1 all draw level; towards 0 it is greedy, and temperature 0 is defined as greedy.

*top-k* keeps the k likeliest tokens. Simple, but k = 50 is too many after "United States of" and too few after "I".

*top-p* (nucleus) keeps the smallest set of likeliest tokens whose probabilities reach p. The set adapts: one token
where the model is sure, hundreds where it is not.

What stays is normalised again. By hand, with probabilities 1/2, 1/4, 1/8, 1/8:

>>> logits = torch.tensor([8.0, 4.0, 2.0, 2.0]).log()
>>> share = lambda **settings: [round(p, 2) for p in logits_to_probs(logits, SamplingConfig(**settings)).tolist()]
>>> share(strategy="multinomial")
[0.5, 0.25, 0.12, 0.12]
>>> share(strategy="multinomial", temperature=0.5)                     # squared: 64, 16, 4, 4 of 88
[0.73, 0.18, 0.05, 0.05]
>>> share(strategy="top_k", top_k=2), share(strategy="top_p", top_p=0.6)    # 2/3 and 1/3 both times
([0.67, 0.33, 0.0, 0.0], [0.67, 0.33, 0.0, 0.0])
>>> share(strategy="greedy"), share(strategy="multinomial", temperature=0.0)
([1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0])

**Order.** Temperature first, then top-k, then top-p, as most tools do: at a high temperature the nucleus widens.
**Edges.** top_k above the vocabulary keeps all. Equal logits at the k-th place all stay, since dropping one would be
arbitrary. top-p always keeps the likeliest token. Nothing here reads or sets a global random state: draws come from
the torch.Generator that is passed in.
**Cost.** O(V) for temperature and top-k; top-p sorts, O(V log V), the dearest of all at V = 100,277.
**Not chosen.** Beam search: it looks for the likeliest whole text, which suits translation and bores in open writing.
**Is it working?** `main.py demo-sampling` shows what each strategy keeps. Draws follow the probabilities: tests count.

Papers: top-p, and why the likeliest text is dull, arXiv 1904.09751; top-k, arXiv 1805.04833. Read before: model.py.
Next: generation.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from transformer.config import SamplingConfig


def logits_to_probs(logits: Tensor, sampling: SamplingConfig) -> Tensor:
    """Returns the distribution that is drawn from: logits (..., V) -> probabilities (..., V), float32 or wider."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if is_greedy(sampling):
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    logits = logits / sampling.temperature
    if sampling.strategy in ("top_k", "top_k_top_p"):
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.strategy in ("top_p", "top_k_top_p"):
        logits = keep_top_p(logits, sampling.top_p)
    return logits.softmax(-1)


def is_greedy(sampling: SamplingConfig) -> bool:
    """Whether the settings always choose the likeliest token, so that nothing is random."""
    return sampling.strategy == "greedy" or sampling.temperature == 0


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Sets all logits (..., V) below the top_k-th largest to -inf."""
    kth = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]  # (..., 1)
    return logits.masked_fill(logits < kth, -math.inf)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Keeps the fewest largest logits (..., V) whose probabilities add up to top_p; the others become -inf."""
    if top_p >= 1:
        return logits
    ordered, ids = logits.sort(stable=True, dim=-1, descending=True)  # (..., V)
    probs = ordered.softmax(-1)
    before = probs.cumsum(-1) - probs  # probability of all tokens likelier than this one
    kept = ordered.masked_fill(before >= top_p, -math.inf)
    kept[..., 0] = ordered[..., 0]  # whatever rounding says, something must stay
    return torch.empty_like(logits).scatter(-1, ids, kept)


def draw(probs: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draws one id from each row: probs (..., V) -> (...,) int64."""
    rows = probs.reshape(-1, probs.shape[-1])
    return torch.multinomial(rows, 1, generator=generator).reshape(probs.shape[:-1])


def choose(logits: Tensor, sampling: SamplingConfig, generator: torch.Generator | None = None) -> Tensor:
    """Chooses the next token of each row: logits (..., V) -> (...,) int64. Greedy needs no random numbers."""
    if is_greedy(sampling):
        return logits.argmax(-1)
    return draw(logits_to_probs(logits, sampling), generator)


def sample_greedy(logits: Tensor) -> Tensor:
    """The likeliest token: logits (..., V) -> (...,) int64."""
    return choose(logits, SamplingConfig("greedy"))


def sample_multinomial(logits: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """A draw from all tokens: logits (..., V) -> (...,) int64."""
    return choose(logits, SamplingConfig("multinomial", temperature).check(), generator)


def sample_top_k(
    logits: Tensor, top_k: int = 50, temperature: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """A draw from the top_k likeliest tokens: logits (..., V) -> (...,) int64."""
    return choose(logits, SamplingConfig("top_k", temperature, top_k=top_k).check(), generator)


def sample_top_p(
    logits: Tensor, top_p: float = 0.9, temperature: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """A draw from the nucleus of probability top_p: logits (..., V) -> (...,) int64."""
    return choose(logits, SamplingConfig("top_p", temperature, top_p=top_p).check(), generator)


def sample_top_k_top_p(
    logits: Tensor,
    top_k: int = 50,
    top_p: float = 0.9,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A draw from the nucleus of the top_k likeliest tokens: logits (..., V) -> (...,) int64."""
    return choose(logits, SamplingConfig("top_k_top_p", temperature, top_k, top_p).check(), generator)
