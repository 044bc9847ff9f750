"""A report as lines and tables at the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from transformer.cli.formatting import counted

NAMED = 3
"""Heads that are named for each habit, places for each kind of activation, tokens for each head."""
LARGEST = 6
"""Heads in the list of the largest shares."""
STAGES = 16
"""Rows of the logit lens; of a deeper model, evenly spaced blocks."""


def shown(piece: Mapping[str, Any]) -> str:
    r"""Returns a token as text: quoted, with escapes for line breaks, and bytes that are no whole character in hex.

    >>> shown({"id": 7, "text": " the\n"})
    "' the\\n'"
    """
    if piece.get("isEnd"):
        return "end of text"
    return " ".join(f"{byte:02x}" for byte in piece["bytes"]) if "bytes" in piece else repr(piece["text"])


def signed(value: float, digits: int = 2) -> str:
    return f"{value:+z.{digits}f}".replace("-", "\N{MINUS SIGN}")


def show_report(report: Mapping[str, Any], out: Console) -> None:
    """Prints the parts that the report has."""
    if "prompt" in report:
        best = ", ".join(f"{shown(each['piece'])} {each['probability']:.1%}" for each in report["next"])
        out.print(f"{counted(len(report['prompt']), 'token')}; most likely next: {best}\n", soft_wrap=True)
        for table in (lens_table(report), heads_table(report)):
            out.print(table)
            out.print()
        if report["patching"]:
            show_patching(report, out)
            out.print()
    show_habits(report["habits"], out)
    if report.get("head"):
        out.print()
        out.print(head_table(report))


def lens_table(report: Mapping[str, Any]) -> Table:
    """The most likely next tokens after each block, and how likely the target is there."""
    lens, target = report["lens"], shown(report["attribution"]["target"])
    table = Table(title="Logit lens: the prediction after each block", title_justify="left")
    table.add_column("after")
    table.add_column("most likely", overflow="fold")
    table.add_column(target, justify="right")
    table.add_column("rank", justify="right")
    last, step = len(lens["stages"]) - 1, -(-len(lens["stages"]) // STAGES)
    for stage in sorted(range(last, -1, -step)):  # the last one is always among them
        best = "  ".join(f"{shown(each['piece'])} {each['probability']:.0%}" for each in lens["cells"][stage][-1][:3])
        found = lens["target"][stage]
        table.add_row(lens["stages"][stage], best, f"{found['probability']:.1%}", f"{found['rank']:,}")
    return table


def heads_table(report: Mapping[str, Any]) -> Table:
    """The heads with the largest shares, what they attend to and their strongest habit; then the other parts."""
    found = report["attribution"]
    versus = f" minus that of {shown(found['versus'])}" if found["versus"] else ""
    title = f"Shares in the logit of {shown(found['target'])}{versus}, {signed(found['total'])}: the largest heads"
    table = Table(title=title, title_justify="left")
    for heading in ("head", "share", "the last token attends most to", "habit", "even head"):
        table.add_column(heading, justify="right" if heading in ("share", "even head") else "left", overflow="fold")
    heads = [part for part in found["parts"] if "head" in part]
    for part in heads[:LARGEST]:
        layer, head = part["layer"], part["head"]
        result = report["results"][layer][head]
        key = f"{shown(report['prompt'][result['key']])} {result['weight']:.0%}"
        table.add_row(f"{layer}.{head}", signed(part["value"]), key, *habit_of(report["habits"], layer, head))
    for name, parts in (
        ("other heads", heads[LARGEST:]),
        ("feed-forward", [part for part in found["parts"] if part["name"].startswith("feed-forward")]),
        ("embeddings, biases", [part for part in found["parts"] if part["name"] in ("embeddings", "biases")]),
    ):
        table.add_row(name, signed(sum(part["value"] for part in parts)), "", "", "")
    return table


def habit_of(habits: Mapping[str, Any], layer: int, head: int) -> tuple[str, str]:
    """The habit in which a head is furthest above an even head, with both scores; empty if there is none."""
    kinds = [kind for kind in habits["kinds"] if kind["even"] is not None]
    above = {kind["name"]: kind["scores"][layer][head] - kind["even"] for kind in kinds}
    name = max(above, key=above.__getitem__, default="")
    if not name or above[name] <= 0:
        return "", ""
    (kind,) = (kind for kind in kinds if kind["name"] == name)
    return f"{name} {kind['scores'][layer][head]:.1%}", f"{kind['even']:.1%}"


def show_patching(report: Mapping[str, Any], out: Console) -> None:
    """Prints the activations that restore most of the difference between the prompts."""
    found, prompt = report["patching"], report["prompt"]
    out.print(
        f"Patching: the logit of {shown(found['target'])} minus that of {shown(found['versus'])} is "
        f"{signed(found['clean'])} after the first prompt (100%) and {signed(found['corrupt'])} after the second (0%).",
        soft_wrap=True,
    )
    table = Table(title="One activation of the first prompt, put into the second, restores", title_justify="left")
    table.add_column("activation")
    table.add_column("block, token: most restored", overflow="fold")
    for place in found["places"]:
        columns = zip(*place["values"], strict=True)  # of each position only the block that restores most
        best = [(max(column), place["rows"][column.index(max(column))], at) for at, column in enumerate(columns)]
        most = [(value, row, at) for value, row, at in sorted(best, reverse=True)[:NAMED] if value >= 0.005]
        cells = [f"{row}, {shown(prompt[at])} at {at}: {value:.0%}" for value, row, at in most]
        table.add_row(place["name"], "; ".join(cells) or "nothing")
    heads = [
        (value, f"{layer}.{head}: {value:.0%}")
        for layer, row in enumerate(found["heads"])
        for head, value in enumerate(row)
    ]
    table.add_row("one head", "; ".join(text for _, text in sorted(heads, reverse=True)[:LARGEST]))
    out.print(table)


def head_table(report: Mapping[str, Any]) -> Table:
    """What one head does at each token of the prompt."""
    found = report["head"]
    table = Table(title=f"Head {found['layer']}.{found['head']}, for each token", title_justify="left")
    for heading in ("token", "attends most to", "makes more likely", "makes less likely"):
        table.add_column(heading, overflow="fold")
    for piece, row in zip(report["prompt"], found["rows"], strict=True):
        key = f"{shown(report['prompt'][row['key']])} {row['weight']:.0%}"
        favoured = ("  ".join(shown(each["piece"]) for each in row[side][:NAMED]) for side in ("up", "down"))
        table.add_row(shown(piece), key, *favoured)
    return table


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
