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

*min-p* keeps the tokens that have at least a share m of the likeliest one's probability. It adapts as well, and holds
when the temperature is high: a flat distribution has a wide nucleus, but its unlikely tokens stay far below the top.

What stays is normalised again. By hand, with probabilities 1/2, 1/4, 1/8, 1/8:

>>> logits = torch.tensor([8.0, 4.0, 2.0, 2.0]).log()
>>> share = lambda **settings: [round(p, 2) for p in logits_to_probs(logits, SamplingConfig(**settings)).tolist()]
>>> share(strategy="multinomial")
[0.5, 0.25, 0.12, 0.12]
>>> share(strategy="multinomial", temperature=0.5)                     # squared: 64, 16, 4, 4 of 88
[0.73, 0.18, 0.05, 0.05]
>>> share(strategy="top_k", top_k=2), share(strategy="top_p", top_p=0.6)    # 2/3 and 1/3 both times
([0.67, 0.33, 0.0, 0.0], [0.67, 0.33, 0.0, 0.0])
>>> share(strategy="multinomial", min_p=0.3)                           # all that have 0.3 * 1/2 = 0.15
[0.67, 0.33, 0.0, 0.0]
>>> share(strategy="greedy"), share(strategy="multinomial", temperature=0.0)
([1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0])

*Repetition penalty* acts on the tokens that the text already has: their logits, divided by it where positive and
multiplied where negative, fall. It breaks loops, of greedy too, and hurts where words must return, in code or tables.

>>> penalise_repetition(torch.tensor([3.0, 1.0, -1.0]), text=torch.tensor([0, 2, 0]), penalty=1.5).tolist()
[2.0, 1.0, -1.5]

**Drawing** is by inversion. The tokens divide a line from 0 to 1 into stretches as long as their probabilities; a
uniform random number falls into one. Each row takes one number, so a row with a generator of its own draws the same in
any batch; and since the generator is the CPU's on every device, a seed gives the same text on all, up to rounding.

>>> at(torch.tensor([0.5, 0.25, 0.125, 0.125]).expand(4, -1), torch.tensor([0.0, 0.49, 0.5, 0.99])).tolist()
[0, 0, 1, 3]

**Order.** Repetition penalty, temperature, top-k, top-p, min-p, as most tools do: at a high temperature the nucleus
widens. **Edges.** top_k above the vocabulary keeps all. Equal logits at the edge all stay, at the k-th place and at
the nucleus's last: dropping some would be arbitrary, and depend on how a device sorts. The likeliest token always
stays. Nothing here reads or sets a global random state where a torch.Generator is passed in.
**Cost.** O(V) for all but top-p, which looks at the 64 likeliest tokens, at eight times more while they do not reach p,
and sorts all, O(V log V), only where the nucleus is nearly everything.
**Not chosen.** Beam search: it looks for the likeliest whole text, which suits translation and bores in open writing.
torch.multinomial: it takes a random number for every token, so what a row draws depends on the rows before it.
**Is it working?** `main.py demo-sampling` shows what each strategy keeps. Draws follow the probabilities: tests count.

Papers: top-p, and why the likeliest text is dull, arXiv 1904.09751; top-k, arXiv 1805.04833; min-p, arXiv 2407.01082;
repetition penalty, arXiv 1909.05858. Read before: model.py. Next: generation.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from transformer.config import SamplingConfig

Generators = torch.Generator | Sequence[torch.Generator] | None
"""What rows draw from: one generator for all, in order; one for each row; or torch's global CPU generator."""
FILTERS = ("softmax", "repetition_penalty", "greedy", "temperature", "top_k", "top_p", "min_p")
"""The stages of a distribution in their order; settings switch most of them off."""
CERTAIN = 2**52
"""Stands for probability 1 where probabilities are summed: whole numbers have exact sums on every device."""


def logits_to_probs(logits: Tensor, sampling: SamplingConfig, text: Tensor | None = None) -> Tensor:
    """Returns the distribution that is drawn from: logits (..., V) -> probabilities (..., V), float32 or wider.

    text (..., T) int64 is what repetition_penalty looks at. Raises ValueError where it is needed and missing.
    """
    return [*_filtered(logits, sampling, text)][-1][1].softmax(-1)


def stages(logits: Tensor, sampling: SamplingConfig, text: Tensor | None = None) -> list[tuple[str, Tensor]]:
    """Returns a name and a distribution (..., V) for softmax alone and after each filter that is switched on.

    The last is what logits_to_probs returns.

    >>> [name for name, probs in stages(torch.zeros(5), SamplingConfig("top_p", temperature=0.7, top_p=0.9))]
    ['softmax', 'temperature 0.7', 'top_p 0.9']
    """
    return [(name, kept.softmax(-1)) for name, kept in _filtered(logits, sampling, text)]


def entropy_bits(probs: Tensor) -> float:
    """Returns the entropy of probs (V,) in bits: 0 where one token is certain, log2 V where all are alike.

    2 to its power is the number of equally likely tokens that would be as uncertain.
    """
    return abs(float(torch.special.entr(probs).sum())) / math.log(2)  # abs: never -0.0


def _filtered(logits: Tensor, sampling: SamplingConfig, text: Tensor | None) -> Iterator[tuple[str, Tensor]]:
    logits = _wide(logits)
    yield "softmax", logits
    if sampling.repetition_penalty != 1:
        logits = _penalised(logits, sampling, text)
        yield f"repetition_penalty {sampling.repetition_penalty:g}", logits
    if is_greedy(sampling):
        yield "greedy", torch.full_like(logits, -math.inf).scatter(-1, logits.argmax(-1, keepdim=True), 0.0)
        return
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
        yield f"temperature {sampling.temperature:g}", logits
    if sampling.strategy in ("top_k", "top_k_top_p"):
        logits = keep_top_k(logits, sampling.top_k)
        yield f"top_k {sampling.top_k}", logits
    if sampling.strategy in ("top_p", "top_k_top_p") and sampling.top_p < 1:
        logits = keep_top_p(logits, sampling.top_p)
        yield f"top_p {sampling.top_p:g}", logits
    if sampling.min_p > 0:
        logits = keep_min_p(logits, sampling.min_p)
        yield f"min_p {sampling.min_p:g}", logits


def is_greedy(sampling: SamplingConfig) -> bool:
    """Whether the settings always choose the likeliest token, so that nothing is random."""
    return sampling.strategy == "greedy" or sampling.temperature == 0


def unused(sampling: SamplingConfig, names: Iterable[str]) -> list[str]:
    """Returns those of the settings named that change nothing with these.

    >>> unused(SamplingConfig("top_p"), ["top_k", "top_p"]), unused(SamplingConfig("greedy"), ["min_p"])
    (['top_k'], ['min_p'])
    """
    used = {"strategy", "temperature", "repetition_penalty"}
    if sampling.strategy == "greedy":
        used.remove("temperature")
    if not is_greedy(sampling):
        used |= {"min_p"} | {name for name in ("top_k", "top_p") if name in sampling.strategy}
    return [name for name in names if name not in used]


def clamped(sampling: SamplingConfig, vocab_size: int) -> str | None:
    """Returns a sentence where top_k is above the vocabulary, so that it limits nothing."""
    if is_greedy(sampling) or "top_k" not in sampling.strategy or sampling.top_k <= vocab_size:
        return None
    return f"top_k={sampling.top_k} is above the {vocab_size} tokens of the vocabulary: all stay"


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Sets all logits (..., V) below the top_k-th largest to -inf."""
    kth = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]  # (..., 1)
    return logits.masked_fill(logits < kth, -math.inf)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Keeps the fewest largest logits (..., V) whose probabilities add up to top_p, and equals of the last of them.

    The others become -inf.
    """
    if top_p >= 1:
        return logits
    vocab_size, k = logits.shape[-1], 64
    probs = _wide(logits).softmax(-1)
    while True:
        k = min(k, vocab_size)
        top, ids = logits.topk(k) if k < vocab_size else logits.sort(descending=True)  # (..., k)
        below = _sums(probs.gather(-1, ids)) < math.ceil(top_p * CERTAIN)  # (..., k)
        if k == vocab_size or not (below & (top > -math.inf))[..., -1].any():
            break
        k *= 8
    last = below.sum(-1, keepdim=True).clamp(max=k - 1)  # (..., 1), the place of the first that reaches top_p
    return logits.masked_fill(logits < top.gather(-1, last), -math.inf)


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """Sets all logits (..., V) to -inf whose probability is below min_p times the largest one."""
    if min_p <= 0:
        return logits
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(min_p), -math.inf)


def penalise_repetition(logits: Tensor, text: Tensor, penalty: float) -> Tensor:
    """Divides positive and multiplies negative logits (..., V) of the ids in text (..., T) by the penalty.

    However often an id occurs, it is penalised once.
    """
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, text.expand(*logits.shape[:-1], -1), True)  # (..., V)
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def _wide(logits: Tensor) -> Tensor:
    """Returns 16-bit logits as float32, in which filters compare and sum."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _penalised(logits: Tensor, sampling: SamplingConfig, text: Tensor | None) -> Tensor:
    if sampling.repetition_penalty == 1:
        return logits
    if text is None:
        raise ValueError(f"repetition_penalty={sampling.repetition_penalty:g} needs the text so far: pass text=")
    return penalise_repetition(logits, text, sampling.repetition_penalty)


def _sums(probs: Tensor) -> Tensor:
    """Returns the sums of the first 1, 2, ... probabilities (..., V), int64, CERTAIN for 1."""
    return (probs * CERTAIN).to(torch.int64).cumsum(-1)


def at(probs: Tensor, uniform: Tensor) -> Tensor:
    """Returns the id whose stretch of the line from 0 to 1 each number is in: probs (N, V), uniform (N,) -> (N,).

    Never an id of probability 0. Raises ValueError for a row that has no probabilities.
    """
    sums = _sums(_wide(probs))  # (N, V)
    total = sums[:, -1].cpu()  # (N,)
    if not bool((total > 0).all()):
        row = int((total <= 0).nonzero()[0])
        raise ValueError(f"row {row} has no probabilities to draw from: its logits are not finite numbers, or all -inf")
    place = (uniform.to("cpu", torch.float64) * total).to(torch.int64)  # (N,), below the total
    return torch.searchsorted(sums, place.to(probs.device)[:, None], right=True)[:, 0]


def draw(probs: Tensor, generator: Generators = None) -> Tensor:
    """Draws one id from each row: probs (..., V) -> (...,) int64, with one uniform number a row.

    A generator may live on another device than probs. Raises ValueError where a sequence has not one for each row.
    """
    rows = probs.reshape(-1, probs.shape[-1])  # (N, V)
    if not isinstance(generator, Sequence):
        uniform = _uniform(len(rows), generator)
    elif len(generator) == len(rows):
        uniform = torch.cat([_uniform(1, own) for own in generator])
    else:
        raise ValueError(f"{len(generator)} generators for {len(rows)} rows: give one for each, or one for all")
    return at(rows, uniform).reshape(probs.shape[:-1])


def _uniform(count: int, generator: torch.Generator | None) -> Tensor:
    """Returns count numbers from 0 to below 1, float64, drawn where the generator lives."""
    device = torch.device("cpu") if generator is None else generator.device
    dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
    return torch.rand(count, generator=generator, dtype=dtype, device=device).to("cpu", torch.float64)


def choose(
    logits: Tensor, sampling: SamplingConfig, generator: Generators = None, text: Tensor | None = None
) -> Tensor:
    """Chooses the next token of each row: logits (..., V) -> (...,) int64. Greedy needs no random numbers.

    text (..., T) int64 is what repetition_penalty looks at. Raises ValueError as logits_to_probs and draw do.
    """
    if is_greedy(sampling):
        return _penalised(_wide(logits), sampling, text).argmax(-1)
    return draw(logits_to_probs(logits, sampling, text), generator)


def sample_greedy(logits: Tensor) -> Tensor:
    """The likeliest token: logits (..., V) -> (...,) int64."""
    return choose(logits, SamplingConfig("greedy"))


def sample_multinomial(logits: Tensor, temperature: float = 1.0, generator: Generators = None) -> Tensor:
    """A draw from all tokens: logits (..., V) -> (...,) int64."""
    return choose(logits, SamplingConfig("multinomial", temperature).check(), generator)


def sample_top_k(logits: Tensor, top_k: int = 50, temperature: float = 1.0, generator: Generators = None) -> Tensor:
    """A draw from the top_k likeliest tokens: logits (..., V) -> (...,) int64."""
    return choose(logits, SamplingConfig("top_k", temperature, top_k=top_k).check(), generator)


def sample_top_p(logits: Tensor, top_p: float = 0.9, temperature: float = 1.0, generator: Generators = None) -> Tensor:
    """A draw from the nucleus of probability top_p: logits (..., V) -> (...,) int64."""
    return choose(logits, SamplingConfig("top_p", temperature, top_p=top_p).check(), generator)


def sample_top_k_top_p(
    logits: Tensor,
    top_k: int = 50,
    top_p: float = 0.9,
    temperature: float = 1.0,
    generator: Generators = None,
) -> Tensor:
    """A draw from the nucleus of the top_k likeliest tokens: logits (..., V) -> (...,) int64."""
    return choose(logits, SamplingConfig("top_k_top_p", temperature, top_k, top_p).check(), generator)
