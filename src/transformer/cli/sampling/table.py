"""The effect of each sampling strategy on one distribution: tables, plain values for results.json, and advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from torch import Tensor

from transformer.cli.sampling.distribution import Names, bar
from transformer.config import SamplingConfig
from transformer.reporting.sampling_stages import entropy_bits
from transformer.sampling import logits_to_probs, sample

ROWS, DRAWS = 12, 12
WHEN = {
    "greedy": "the same text every time, as tests need; long texts fall into loops.",
    "multinomial": "the full distribution; in a long text an unlikely token sooner or later derails it.",
    "top_k": "a simple limit, but one k is too large if the model is certain and too small if it is not.",
    "top_p": "the usual choice for prose: few tokens if the model is certain, many if it is not.",
    "top_k_top_p": "top_p within the k most likely tokens: for high temperatures, at which top_p keeps many.",
    "min_p": "a limit relative to the most likely token, useful at high temperatures; 0.05 to 0.1 is usual.",
    "repetition_penalty": "against loops, 1.1 to 1.3; not for texts that must repeat words, such as code and tables.",
}


@dataclass(frozen=True)
class Column:
    """One sampling strategy, and its effect on the distribution."""

    name: str
    sampling: SamplingConfig
    probs: Tensor
    """(V,)"""
    draws: list[int]

    @property
    def kept(self) -> int:
        """Tokens that can be sampled."""
        return int((self.probs > 0).sum())

    @property
    def bits(self) -> float:
        return entropy_bits(self.probs)


def columns_of(logits: Tensor, text: Tensor, ways: Mapping[str, SamplingConfig], seed: int) -> list[Column]:
    """Returns a column for each strategy: sampling from logits (V,) after text (T,), all with the same seed."""
    columns = []
    for name, sampling in ways.items():
        probs = logits_to_probs(logits, sampling, text)  # (V,)
        tokens = sample(logits.expand(DRAWS, -1), sampling, torch.Generator().manual_seed(seed), text)  # (DRAWS,)
        columns.append(Column(name, sampling, probs, tokens.tolist()))
    return columns


def table_of(columns: Sequence[Column], logits: Tensor, name: Names, title: str) -> Table:
    """Returns a table with a row for each of the most likely tokens of logits (V,)."""
    top = logits.topk(min(ROWS, len(logits))).indices  # (R,)
    others = torch.ones(len(logits), dtype=torch.bool).scatter(0, top, False)  # (V,)
    names = [name(int(token)) for token in top] + [f"{int(others.sum()):,} others"] * bool(others.any())
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("token", min_width=8)
    for column in columns:
        table.add_column(column.name, min_width=8, no_wrap=True)
    for row, spelt in enumerate(names):
        shares = [float(column.probs[top[row] if row < len(top) else others].sum()) for column in columns]
        table.add_row(Text(spelt), *(f"{share:5.1%} {bar(share, width=2)}" if share else "" for share in shares))
    table.add_section()
    table.add_row("kept", *(f"{column.kept:,}" for column in columns))
    table.add_row("bits", *(f"{column.bits:.2f}" for column in columns))
    table.add_row("effective", *(f"{2**column.bits:,.1f}" for column in columns))
    return table


def draws_of(columns: Sequence[Column], name: Names) -> Table:
    """Returns a line of samples for each column."""
    lines = Table.grid(padding=(0, 1))
    for column in columns:
        lines.add_row(column.name.replace("\n", " "), Text(" ".join(map(name, column.draws))))
    return lines


def results_of(columns: Sequence[Column], logits: Tensor, name: Names) -> list[dict[str, Any]]:
    """Returns the contents of the table as plain values, probabilities unrounded."""
    top = logits.topk(min(ROWS, len(logits))).indices.tolist()
    return [
        {
            "name": column.name.replace("\n", " "),
            "sampling": column.sampling.to_dict(),
            "kept": column.kept,
            "bits": column.bits,
            "effective": 2**column.bits,
            "tokens": [{"id": token, "text": name(token), "probability": float(column.probs[token])} for token in top],
            "draws": [name(token) for token in column.draws],
        }
        for column in columns
    ]
