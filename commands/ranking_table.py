"""A ranking on the terminal: a table, and in words whether its first checkpoint is the best one."""

from __future__ import annotations

from rich.table import Table

from transformer.perplexity import Difference
from transformer.ranking import WRONG, Ranking, Row

MOST_NAMED = 4
"""Checkpoints that a sentence names; it counts the others."""


def ranking_table(ranking: Ranking) -> Table:
    texts = "1 document" if ranking.documents == 1 else f"{ranking.documents:,} documents"
    title = f"{ranking.text}: {texts}, {ranking.text_bytes:,} bytes; fewest bits per byte first"
    table = Table(title=title, title_justify="left")
    for heading in ("", "checkpoint", "encoding", "bits per byte", "behind the first", "perplexity", "tokens seen"):
        table.add_column(heading, justify="left" if heading in ("checkpoint", "encoding") else "right", overflow="fold")
    table.add_column("since the epoch before", justify="right")
    for place, row in enumerate(ranking.rows, start=1):
        table.add_row(*cells(row, place, ranking))
    return table


def cells(row: Row, place: int, ranking: Ranking) -> list[str]:
    one, score = row.measured, row.measured.scores.evaluation
    ties = sum(other.is_tied for other in ranking.rows)
    return [
        "1=" if row.is_tied and ties > 1 else str(place),
        str(one.path),
        one.encoding,
        with_error(Difference(score.bits_per_byte, one.scores.bits_per_byte_error)),
        "" if place == 1 else with_error(row.behind, "+"),
        f"{score.perplexity:.2f}",
        f"{one.tokens:,}",
        since(row),
    ]


def since(row: Row) -> str:
    """Returns the change since the checkpoint before, and which one that is where it is not the epoch before."""
    if row.change is None or row.before is None:
        return ""
    epoch, before = row.measured.epoch, row.before.epoch
    gap = epoch is not None and before is not None and epoch - before != 1
    return with_error(row.change, "+") + (f" (epoch {before})" if gap else "")


def with_error(number: Difference, sign: str = "") -> str:
    error = "" if number.error is None else f" ± {number.error:.4f}"
    return f"{number.bits_per_byte:{sign}.4f}{error}"


def conclusion(ranking: Ranking) -> str:
    """Returns whether the first is the best, and by which rule; else which ones it cannot be told apart from."""
    first, rule = ranking.rows[0].measured.path, f"{ranking.bar:.1f} standard errors"
    if len(ranking.rows) == 1:
        return "One checkpoint: there is nothing to compare it with."
    if ranking.best:
        return (
            f"BEST: {first}, ahead of every other by more than {rule} of the difference (chosen so that with "
            f"{len(ranking.rows)} checkpoints at most {WRONG:.1%} of such calls are wrong)."
        )
    if ranking.documents < 2:
        return "None is called best: one document is too few to tell (--max-tokens reads more)."
    tied = [str(row.measured.path) for row in ranking.rows[1:] if row.is_tied]
    more = f" and {len(tied) - MOST_NAMED} more" if len(tied) > MOST_NAMED else ""
    return (
        f"None is called best: {first} cannot be told apart from {', '.join(tied[:MOST_NAMED])}{more} "
        f"(1=: within {rule} of the difference)."
    )
