"""Checkpoints ranked by what they scored on the same documents, and what may be said of the order.

The first of many is often first by luck: the more there are, the more chances luck has. So the one with the fewest bits
per byte is called *best* only where it is ahead of every other by more than `bar` standard errors of the difference,
paired by document (perplexity.py). For that to be wrong, one of the n - 1 others must be better in truth and yet be
beaten by that much. With a chance of 0.025 / (n - 1) for each (Bonferroni), all together have at most 0.025:

>>> [round(bar(n, documents=1000), 2) for n in (2, 3, 10, 100)]         # never below the usual two
[2.0, 2.24, 2.78, 3.49]

The errors of few documents are themselves unsure, which Student's t makes up for, with one degree of freedom less than
there are documents; unequal ones count as fewer (Kish 1965: as many equal ones as have the same sum of squared shares):

>>> [round(bar(10, documents), 2) for documents in (3, 6, 12, 100)]
[13.36, 4.66, 3.44, 2.84]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transformer.evaluation.statistics import Difference, DocumentScores

WRONG = 0.025
"""Chance, at most, that a checkpoint is called best and is not."""
LOWEST_BAR = 2.0


@dataclass(frozen=True)
class Measured:
    """A checkpoint and what it scored."""

    path: Path
    encoding: str
    epoch: int | None
    tokens: int
    """Tokens seen in training."""
    scores: DocumentScores


@dataclass(frozen=True)
class Row:
    """A checkpoint's place among others. Differences are in bits per byte, above 0 where it is worse."""

    measured: Measured
    behind: Difference
    """How far it is behind the first."""
    is_tied: bool
    """Whether it cannot be told apart from the first, which always is."""
    before: Measured | None
    """The checkpoint before it in its run: of the same folder and encoding."""
    change: Difference | None
    """What has come of the tokens since then."""


@dataclass(frozen=True)
class Ranking:
    """Checkpoints that read the same text, the first one first."""

    text: str
    """What that is, for a person."""
    rows: list[Row]
    bar: float
    """Standard errors by which the first must be ahead of another one to be told apart from it."""

    @property
    def documents(self) -> int:
        return len(self.rows[0].measured.scores)

    @property
    def text_bytes(self) -> int:
        return self.rows[0].measured.scores.evaluation.text_bytes

    @property
    def best(self) -> Row | None:
        """The first, where it is surely ahead of every other; None where it is not, or alone."""
        alone = sum(row.is_tied for row in self.rows) == 1 and len(self.rows) > 1
        return self.rows[0] if alone else None

    def to_dict(self) -> dict[str, Any]:
        """The ranking as plain values."""
        return {
            "text": self.text,
            "documents": self.documents,
            "text_bytes": self.text_bytes,
            "bar": self.bar,
            "best": None if self.best is None else str(self.best.measured.path),
            "checkpoints": [_plain(row) for row in self.rows],
        }


def rank(text: str, measured: Sequence[Measured]) -> Ranking:
    """Ranks checkpoints by bits per byte. Raises ValueError where they were not measured on the same documents."""
    ordered = sorted(measured, key=lambda one: (one.scores.evaluation.bits_per_byte, str(one.path)))
    needed = bar(len(ordered), effective_documents(ordered[0].scores))
    rows = []
    for one in ordered:
        behind = one.scores.minus(ordered[0].scores)
        is_ahead = behind.error is not None and behind.bits_per_byte > needed * behind.error
        before = _before(one, ordered)
        change = None if before is None else one.scores.minus(before.scores)
        rows.append(Row(one, behind, not is_ahead, before, change))
    return Ranking(text, rows, needed)


def effective_documents(scores: DocumentScores) -> float:
    """Returns how many documents of one size would tell as much: at most as many as there are."""
    sizes = scores.text_bytes.double()
    return float(sizes.sum() ** 2 / sizes.square().sum())


def bar(checkpoints: int, documents: float) -> float:
    """Returns the standard errors by which the first of so many must be ahead of each; infinite for one document."""
    if documents <= 1:
        return math.inf
    return max(LOWEST_BAR, students_t(WRONG / max(1, checkpoints - 1), max(1.0, documents - 1)))


def students_t(chance: float, freedom: float) -> float:
    """Returns what Student's t with so many degrees of freedom exceeds with this chance.

    With t = sqrt(freedom) * tan(angle) its density is that of cos(angle)^(freedom - 1), which is added up here.

    >>> round(students_t(0.025, 1), 2), round(students_t(0.025, 10), 3), round(students_t(0.0005, 30), 3)
    (12.71, 2.228, 3.646)
    """
    edges = np.linspace(-math.pi / 2, math.pi / 2, 20_001)
    mass = np.cumsum(np.cos((edges[1:] + edges[:-1]) / 2) ** (freedom - 1))
    return math.sqrt(freedom) * math.tan(float(np.interp(1 - chance, mass / mass[-1], edges[1:])))


def _before(one: Measured, others: Sequence[Measured]) -> Measured | None:
    """Returns the last checkpoint of the same run that has seen fewer tokens."""
    run = [
        other
        for other in others
        if (other.path.parent, other.encoding) == (one.path.parent, one.encoding) and other.tokens < one.tokens
    ]
    return max(run, key=lambda other: other.tokens, default=None)


def _plain(row: Row) -> dict[str, Any]:
    one, score = row.measured, row.measured.scores.evaluation
    change = {} if row.change is None or row.before is None else row.change._asdict() | {"since": str(row.before.path)}
    return {
        "checkpoint": str(one.path),
        "encoding": one.encoding,
        "epoch": one.epoch,
        "tokens_seen": one.tokens,
        "bits_per_byte": score.bits_per_byte,
        "bits_per_byte_error": one.scores.bits_per_byte_error,
        "loss": score.loss,
        "loss_error": one.scores.loss_error,
        "perplexity": score.perplexity,
        "tokens": score.tokens,
        "behind": row.behind._asdict(),
        "tied_with_first": row.is_tied,
        "change": change or None,
    }
