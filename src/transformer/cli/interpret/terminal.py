"""A report as lines and tables at the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

NAMED = 3
"""Heads that are named for each habit."""


def shown(piece: Mapping[str, Any]) -> str:
    r"""Returns a token as text: quoted, with escapes for line breaks, and bytes that are no whole character in hex.

    >>> shown({"id": 7, "text": " the\n"})
    "' the\\n'"
    """
    if piece.get("isEnd"):
        return "end of text"
    return " ".join(f"{byte:02x}" for byte in piece["bytes"]) if "bytes" in piece else repr(piece["text"])


def show_prompt(report: Mapping[str, Any], out: Console) -> None:
    """Prints the predictions after the prompt, and where the chosen head attends."""
    best = ", ".join(f"{shown(each['piece'])} {each['probability']:.1%}" for each in report["next"])
    out.print(f"{len(report['prompt'])} tokens; most likely next: {best}", soft_wrap=True)
    layer, head = report["chosen"]
    found = report["results"][layer][head]
    last, key = report["prompt"][-1], report["prompt"][found["key"]]
    out.print(f"head {layer}.{head}: {shown(last)} attends most to {shown(key)}, {found['weight']:.0%}", soft_wrap=True)


def show_habits(habits: Mapping[str, Any], out: Console) -> None:
    """Prints the heads with the highest scores of each habit, beside the score of an even head."""
    table = Table(title="Habits, and the heads with the highest scores", title_justify="left")
    for heading in ("habit", "even head", *(f"{rank}." for rank in range(1, NAMED + 1))):
        table.add_column(heading, justify="right" if heading == "even head" else "left")
    for kind in habits["kinds"]:
        even = "none here" if kind["even"] is None else f"{kind['even']:.1%}"
        table.add_row(kind["name"], even, *(scored(*found) for found in ranked(kind)[:NAMED]))
    out.print(table)
    out.print(habits["measured"], style="dim", soft_wrap=True)


def ranked(kind: Mapping[str, Any]) -> list[tuple[str, float, float | None]]:
    """Returns name, score and standard error of all heads, the highest score first; none if no token has the habit."""

    def scores() -> Iterator[tuple[str, float, float | None]]:
        for layer, row in enumerate(kind["scores"]):
            for head, score in enumerate(row):
                if score is not None:
                    yield f"{layer}.{head}", score, kind["errors"][layer][head]

    return sorted(scores(), key=lambda found: -found[1])


def scored(name: str, score: float, error: float | None) -> str:
    return f"{name}: {score:.1%}" + ("" if error is None else f" ± {100 * error:.2g}%")
