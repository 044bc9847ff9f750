r"""Statistics of evaluations: standard errors over documents, and paired differences between models.

Another choice of documents would give another loss. Tokens of one document resemble each other, so documents, not
tokens, are the independent samples. The loss L = sum n_d / sum t_d over D documents of n_d nats and t_d tokens is a
ratio of two sums; the linearised estimate of its standard error is

    s = sqrt(D / (D - 1) * sum_d (n_d - L t_d)^2) / sum_d t_d

By hand: documents of 4 and 2 tokens cost 10 and 2 nats. L = 12 / 6 = 2, the residuals are 10 - 2 * 4 = 2 and
2 - 2 * 2 = -2, and s = sqrt(2 / 1 * (4 + 4)) / 6 = 4 / 6:

>>> scores = DocumentScores(torch.tensor([10.0, 2.0]), torch.tensor([4, 2]), text_bytes=torch.tensor([9, 3]))
>>> round(scores.loss_error, 4)
0.6667

Two models on the same documents are compared by the difference of each document (`DocumentScores.minus`): a document
that is hard for one model is hard for the other, so this variation cancels, and a difference far below either model's
own standard error is still measurable.

Below ten documents the estimate of s is itself uncertain. A standard error over tokens would be too small, since
tokens of one document are not independent.

Papers: the standard error of a ratio, Cochran 1977, "Sampling Techniques", chapter 6; paired differences, arXiv
2411.00640. Read before: perplexity.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from transformer.perplexity import Evaluation


class Difference(NamedTuple):
    """The paired difference between two models on the same documents."""

    bits_per_byte: float
    error: float | None
    """Its standard error; None for fewer than two documents."""


@dataclass(frozen=True)
class DocumentScores:
    """The scores of one model on each of D documents."""

    nats: Tensor
    """Summed negative log-likelihood, (D,) float64."""
    tokens: Tensor
    """Predicted tokens, end-of-text included, (D,) int64."""
    text_bytes: Tensor
    """Size of the text in bytes, (D,) int64."""

    def __len__(self) -> int:
        """The number of documents."""
        return len(self.nats)

    @property
    def evaluation(self) -> Evaluation:
        """The sums over all documents."""
        return Evaluation(float(self.nats.sum()), int(self.tokens.sum()), int(self.text_bytes.sum()))

    @property
    def loss_error(self) -> float | None:
        """The standard error of the loss, in nats per token; None for fewer than two documents."""
        return _ratio_error(self.nats, self.tokens)

    @property
    def perplexity_error(self) -> float | None:
        """The standard error of the perplexity, to first order; None for fewer than two documents."""
        return None if self.loss_error is None else self.evaluation.perplexity * self.loss_error

    @property
    def bits_per_byte_error(self) -> float | None:
        """The standard error of the bits per byte; None for fewer than two documents."""
        return _ratio_error(self.nats / math.log(2), self.text_bytes)

    def minus(self, other: DocumentScores) -> Difference:
        """Returns this model's bits per byte minus the other's, paired by document.

        Raises ValueError if the documents differ in size; see `common_documents`.
        """
        if not torch.equal(self.text_bytes, other.text_bytes):
            raise ValueError(
                "the two models were not evaluated on the same documents: apply common_documents() to both first"
            )
        bits = (self.nats - other.nats) / math.log(2)  # (D,)
        return Difference(float(bits.sum() / self.text_bytes.sum()), _ratio_error(bits, self.text_bytes))


def common_documents(scores: Sequence[DocumentScores]) -> list[DocumentScores]:
    """Keeps the leading documents that every model scored in full.

    A limit in tokens ends earlier in the text for an encoding with more tokens per byte, often inside a document.
    """
    count = min(map(len, scores), default=0)
    sizes = [score.text_bytes[:count] for score in scores]
    alike = torch.stack([size == sizes[0] for size in sizes]).all(0) if sizes else torch.ones(0)  # (count,)
    whole = int(alike.long().cumprod(0).sum())
    return [DocumentScores(score.nats[:whole], score.tokens[:whole], score.text_bytes[:whole]) for score in scores]


def _ratio_error(parts: Tensor, sizes: Tensor) -> float | None:
    """Standard error of sum(parts) / sum(sizes), both (D,), over samples of documents; None for fewer than two."""
    total = float(sizes.sum())
    if len(parts) < 2 or not total:
        return None
    residuals = parts - parts.sum() / total * sizes  # (D,)
    return math.sqrt(float(residuals.square().sum()) * len(parts) / (len(parts) - 1)) / total


@dataclass
class LossVariance:
    """The variance of the loss between batches, kept as sums that can be added over batches and over processes."""

    batches: float = 0.0
    nats_squared: float = 0.0
    nats_times_tokens: float = 0.0
    tokens_squared: float = 0.0

    def add(self, nats: float, tokens: float) -> None:
        """Adds a batch; a batch without counted tokens changes nothing."""
        if not tokens:
            return
        self.batches += 1
        self.nats_squared += nats * nats
        self.nats_times_tokens += nats * tokens
        self.tokens_squared += tokens * tokens

    def loss_error(self, evaluation: Evaluation) -> float | None:
        """Returns the standard error of the evaluation's loss; None for fewer than two batches."""
        if self.batches < 2 or not evaluation.tokens:
            return None
        loss = evaluation.loss
        squares = self.nats_squared - 2 * loss * self.nats_times_tokens + loss**2 * self.tokens_squared
        return math.sqrt(max(0.0, squares) * self.batches / (self.batches - 1)) / evaluation.tokens


@functools.cache
def students_t(probability: float, degrees_of_freedom: float) -> float:
    """Returns the value that Student's t exceeds with this probability.

    Substituting t = sqrt(degrees_of_freedom) * tan(angle) turns its density into cos(angle)^(degrees_of_freedom - 1),
    which is integrated numerically.

    >>> round(students_t(0.025, 1), 2), round(students_t(0.025, 10), 3), round(students_t(0.0005, 30), 3)
    (12.71, 2.228, 3.646)
    """
    angles = torch.linspace(-math.pi / 2, math.pi / 2, 20_001, dtype=torch.float64)
    cumulative = ((angles[1:] + angles[:-1]) / 2).cos().pow(degrees_of_freedom - 1).cumsum(0)  # (20000,)
    above = int(torch.searchsorted(cumulative, (1 - probability) * cumulative[-1]))
    low = float(cumulative[above - 1]) if above else 0.0
    share = ((1 - probability) * float(cumulative[-1]) - low) / (float(cumulative[above]) - low)
    return math.sqrt(degrees_of_freedom) * math.tan(float(angles[above]) + share * float(angles[1] - angles[0]))
