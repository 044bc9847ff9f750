"""Checkpoints ranked by their scores on the same documents, and whether the first is significantly ahead.

The first of many checkpoints is often first by chance, and the more there are, the more often. A checkpoint is called
*best* only if its lead over every other one exceeds `threshold` standard errors of the difference, paired by document
(statistics.py). With n checkpoints there are n - 1 comparisons. Each gets an error probability of 0.025 / (n - 1)
(Bonferroni), so the probability of calling a checkpoint best by mistake is at most 0.025:

>>> [round(threshold(n, documents=1000), 2) for n in (2, 3, 10, 100)]         # never below the usual two
[2.0, 2.24, 2.78, 3.49]

With few documents the standard errors are themselves uncertain. Student's t accounts for this, with one degree of
freedom less than the number of documents. Documents of unequal size count as fewer (Kish 1965):

>>> [round(threshold(10, documents), 2) for documents in (3, 6, 12, 100)]
[13.36, 4.66, 3.44, 2.84]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer.evaluation.statistics import Difference, DocumentScores, students_t

ERROR_PROBABILITY = 0.025
"""Upper bound on the probability that a checkpoint is called best and is not."""
MINIMUM_THRESHOLD = 2.0
"""Standard errors."""


@dataclass(frozen=True)
class Measured:
    """A checkpoint and its scores."""

    path: Path
    encoding: str
    epoch: int | None
    tokens: int
    """Tokens seen in training."""
    scores: DocumentScores


@dataclass(frozen=True)
class Row:
    """The rank of one checkpoint. Differences are in bits per byte; positive means worse."""

    measured: Measured
    behind: Difference
    """The difference to the first checkpoint."""
    is_tied: bool
    """True if the difference to the first checkpoint is not significant; always true for the first itself."""
    before: Measured | None
    """The previous checkpoint of the same run: same folder and encoding, fewer training tokens."""
    change: Difference | None
    """The difference to that previous checkpoint."""


@dataclass(frozen=True)
class Ranking:
    """Checkpoints evaluated on the same text, best score first."""

    text: str
    """A description of the text."""
    rows: list[Row]
    threshold: float
    """The lead, in standard errors of the difference, from which it is significant."""

    @property
    def documents(self) -> int:
        return len(self.rows[0].measured.scores)

    @property
    def text_bytes(self) -> int:
        return self.rows[0].measured.scores.evaluation.text_bytes

    @property
    def best(self) -> Row | None:
        """The first checkpoint if its lead over every other is significant; None if not, or if it is the only one."""
        alone = sum(row.is_tied for row in self.rows) == 1 and len(self.rows) > 1
        return self.rows[0] if alone else None

    def to_dict(self) -> dict[str, Any]:
        """The ranking as plain values."""
        return {
            "text": self.text,
            "documents": self.documents,
            "text_bytes": self.text_bytes,
            "threshold": self.threshold,
            "best": None if self.best is None else str(self.best.measured.path),
            "checkpoints": [_plain(row) for row in self.rows],
        }


def rank(text: str, measured: Sequence[Measured]) -> Ranking:
    """Ranks checkpoints by bits per byte. Raises ValueError if they were not evaluated on the same documents."""
    ordered = sorted(measured, key=lambda one: (one.scores.evaluation.bits_per_byte, str(one.path)))
    needed = threshold(len(ordered), effective_documents(ordered[0].scores))
    rows = []
    for one in ordered:
        behind = one.scores.minus(ordered[0].scores)
        is_ahead = behind.error is not None and behind.bits_per_byte > needed * behind.error
        before = _before(one, ordered)
        change = None if before is None else one.scores.minus(before.scores)
        rows.append(Row(one, behind, not is_ahead, before, change))
    return Ranking(text, rows, needed)


def effective_documents(scores: DocumentScores) -> float:
    """Returns the number of equally large documents with the same statistical weight, at most len(scores)."""
    sizes = scores.text_bytes.double()
    return float(sizes.sum() ** 2 / sizes.square().sum())


def threshold(checkpoints: int, documents: float) -> float:
    """Returns the lead, in standard errors, from which the first checkpoint is significantly ahead of each other one.

    Infinite for a single document.
    """
    if documents <= 1:
        return math.inf
    return max(MINIMUM_THRESHOLD, students_t(ERROR_PROBABILITY / max(1, checkpoints - 1), max(1.0, documents - 1)))


def _before(one: Measured, others: Sequence[Measured]) -> Measured | None:
    """Returns the last checkpoint of the same run with fewer training tokens."""
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
