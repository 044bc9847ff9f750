"""A ranking on the terminal: a table, and a sentence that says whether the first checkpoint is the best one."""

from __future__ import annotations

from rich.table import Table

from transformer.cli.console import fitting_table
from transformer.evaluation.ranking import ERROR_PROBABILITY, Ranking, Row
from transformer.evaluation.statistics import Difference

OPTIONAL = ("encoding", "tokens seen", "perplexity", "since epoch before")
"""Left out where the table does not fit, the first ones first."""
MOST_NAMED = 4
"""Maximum number of checkpoints that a sentence names."""


def ranking_table(ranking: Ranking, width: int) -> Table:
    """Returns the table. If it does not fit, checkpoints are shortened to what differs, and columns are left out."""
    texts = "1 document" if ranking.documents == 1 else f"{ranking.documents:,} documents"
    title = f"{ranking.text}: {texts}, {ranking.text_bytes:,} bytes; fewest bits per byte first"
    rows = [cells(row, place, ranking) for place, row in enumerate(ranking.rows, start=1)]
    columns = {heading: [row[heading] for row in rows] for heading in rows[0]}
    return fitting_table(title, columns, width, ["checkpoint", "encoding"], OPTIONAL)


def cells(row: Row, place: int, ranking: Ranking) -> dict[str, str]:
    """Returns the cells of a checkpoint's row, by heading."""
    one, score = row.measured, row.measured.scores.evaluation
    is_shared = row.is_tied and sum(other.is_tied for other in ranking.rows) > 1
    return {
        "": "1=" if is_shared else str(place),
        "checkpoint": str(one.path),
        "encoding": one.encoding,
        "bits per byte": with_error(Difference(score.bits_per_byte, one.scores.bits_per_byte_error)),
        "behind first": "" if place == 1 else with_error(row.behind, "+"),
        "perplexity": f"{score.perplexity:.2f}",
        "tokens seen": f"{one.tokens:,}",
        "since epoch before": since(row),
    }


def since(row: Row) -> str:
    """Returns the change since the previous checkpoint, and its epoch if that is not the previous epoch."""
    if row.change is None or row.before is None:
        return ""
    epoch, before = row.measured.epoch, row.before.epoch
    gap = epoch is not None and before is not None and epoch - before != 1
    return with_error(row.change, "+") + (f" (epoch {before})" if gap else "")


def with_error(number: Difference, sign: str = "") -> str:
    error = "" if number.error is None else f" ± {number.error:.4f}"
    return f"{number.bits_per_byte:{sign}.4f}{error}"


def conclusion(ranking: Ranking) -> str:
    """Returns whether the first is the best, and the criterion; otherwise those that are not significantly worse."""
    first, rule = ranking.rows[0].measured.path, f"{ranking.threshold:.1f} standard errors"
    if len(ranking.rows) == 1:
        return "There is only one checkpoint."
    if ranking.best:
        return (
            f"BEST: {first}, better than every other by more than {rule} of the difference (a threshold at which, with "
            f"{len(ranking.rows)} checkpoints, at most {ERROR_PROBABILITY:.1%} of such conclusions are wrong)."
        )
    if ranking.documents < 2:
        return "No checkpoint is called best: one document is not enough (a larger --max-tokens reads more)."
    tied = [str(row.measured.path) for row in ranking.rows[1:] if row.is_tied]
    more = f" and {len(tied) - MOST_NAMED} more" if len(tied) > MOST_NAMED else ""
    return (
        f"No checkpoint is called best: {first} is not significantly better than {', '.join(tied[:MOST_NAMED])}{more} "
        f"(1=: within {rule} of the difference)."
    )
