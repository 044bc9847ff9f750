"""A smoke run of the FineWeb-Edu path: what is on the hub, how long it takes to reach it, the split, and a sample.

    uv run python commands/test_fineweb.py                      fetches two row groups: some megabytes
    uv run python commands/test_fineweb.py --encoding p50k_base

Not a test for pytest, despite its name: it needs a network. Without one it says so in a line and exits with status 2.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from rich.table import Table
from rich.text import Text

from cli import console, parse, run
from transformer.config import DataConfig
from transformer.dataset import TextData, Tokens, open_dataset
from transformer.fineweb_dataset import FineWebSource


@dataclass(frozen=True)
class FineWebOptions:
    """Fetches a little of FineWeb-Edu and shows what is there, how fast it comes, and how it is split."""

    encoding: str = DataConfig.encoding
    """cl100k_base, p50k_base or byte."""
    sample_tokens: int = 120
    """Tokens of training text to decode and show."""


def main(arguments: Sequence[str]) -> None:
    options = parse(FineWebOptions, arguments, "test-fineweb")
    out = console()
    times = [time.perf_counter()]
    data = open_dataset(DataConfig("fineweb", options.encoding, validation_tokens=1).check())
    source = data.train
    assert isinstance(source, FineWebSource)
    unit = min(1, len(source) - 1)  # opening has read unit 0 already, for its validation documents
    for _ in range(2):
        times.append(time.perf_counter())
        tokens = source[unit]
    times.append(time.perf_counter())
    out.print(hub(source))
    out.print(timing(data, tokens, unit, [after - before for before, after in itertools.pairwise(times)]))
    out.print(split(data, unit))
    sample = data.tokenizer.decode(tokens[: options.sample_tokens].tolist())
    out.print(Text(f"the first {options.sample_tokens} tokens of unit {unit}", style="italic"))
    out.print(Text(sample))


def hub(source: FineWebSource) -> Table:
    """Returns the files, their sizes and row groups."""
    table = Table(title="on the hub", title_justify="left")
    table.add_column("file")
    table.add_column("size, MB", justify="right")
    table.add_column("row groups", justify="right")
    groups = Counter(path for path, _ in source.units)
    sizes = {path: source.files.size(path) / 1e6 for path in groups}
    for path, count in groups.items():
        table.add_row(path, f"{sizes[path]:,.1f}", f"{count:,}")
    table.add_section()
    table.add_row(f"{len(groups)} files", f"{sum(sizes.values()):,.1f}", f"{len(source):,}")
    return table


def timing(data: TextData, tokens: Tokens, unit: int, seconds: Sequence[float]) -> Table:
    """Returns what took how long: opening, a unit fetched and encoded, and the same unit from memory."""
    opening, fetching, again = seconds
    text_bytes = len(data.tokenizer.decode_bytes(tokens[tokens != data.tokenizer.eot_id].tolist()))
    table = Table(title=f"timing ({data.tokenizer.name})", title_justify="left")
    table.add_column("what")
    table.add_column("seconds", justify="right")
    table.add_column("result")
    table.add_row("open: list files, read footers, fetch unit 0", f"{opening:.2f}", f"{len(data.train):,} units")
    result = (
        f"{documents(data, tokens):,} training documents, {len(tokens):,} tokens, {text_bytes / 1e6:.2f} MB of text"
    )
    table.add_row(f"unit {unit}: fetch, split, encode", f"{fetching:.2f}", result)
    speed = f"{text_bytes / 1e6 / fetching:.2f} MB of text/s, {len(tokens) / fetching:,.0f} tokens/s"
    table.add_row("", "", f"{fetched_bytes(data.train, unit) / 1e6:.2f} MB fetched; {speed}")
    table.add_row(f"unit {unit} again, from memory", f"{again:.2f}", "the last units read stay in memory")
    return table


def split(data: TextData, last_unit: int) -> Table:
    """Returns how many documents and tokens of the units read are for training, and how many for validation."""
    assert isinstance(data.train, FineWebSource)
    units = range(last_unit + 1)
    sides = {
        "train": [data.train[unit] for unit in units],
        "validation": list(itertools.islice(data.train.held_out(), len(units))),
    }
    counts = {side: sum(documents(data, tokens) for tokens in parts) for side, parts in sides.items()}
    table = Table(title=f"split of the first {len(units)} units", title_justify="left")
    for heading in ("side", "documents", "share", "tokens"):
        table.add_column(heading, justify="left" if heading == "side" else "right")
    for side, parts in sides.items():
        share = counts[side] / max(1, sum(counts.values()))
        table.add_row(side, f"{counts[side]:,}", f"{share:.1%}", f"{sum(map(len, parts)):,}")
    return table


def documents(data: TextData, tokens: Tokens) -> int:
    """Returns how many documents the tokens hold: one for every end-of-text."""
    return int(np.count_nonzero(tokens == data.tokenizer.eot_id))


def fetched_bytes(source: object, unit: int) -> int:
    """Returns how many bytes the text column of a unit takes in its file, compressed."""
    assert isinstance(source, FineWebSource)
    path, group = source.units[unit]
    with source.files.open(path, "rb", cache_type="none") as file:
        footer = pq.ParquetFile(file)
        column = footer.schema_arrow.names.index(source.text_field)
        return int(footer.metadata.row_group(group).column(column).total_compressed_size)


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
