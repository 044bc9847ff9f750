"""The tables of test-fineweb: files on the hub, timing, cache, and split."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from transformer.cli.console import printable
from transformer.config import DataConfig
from transformer.data.cache.shard_files import PARTS, TEXT
from transformer.data.cache.token_files import RowGroupTokens
from transformer.data.contracts import TextData
from transformer.fineweb_dataset import HubSource


@dataclass(frozen=True)
class Reading:
    """One opening of the dataset: the row groups read, and the seconds of each part."""

    opening: float
    first_batch: float
    reading: float
    fetched_bytes: int
    units: list[RowGroupTokens]


def hub(source: HubSource) -> Table:
    """Returns the files with their sizes and numbers of shards."""
    files = source.text.files
    table = Table(title=f"{source.text.hub.repo} at {source.text.commit[:12]}", title_justify="left")
    table.add_column("file")
    table.add_column("size, MB", justify="right")
    table.add_column("shards", justify="right")
    shards = [sum(piece[0] == file for piece in source.text.pieces) for file in files]
    for file, count in zip(files[:20], shards, strict=False):
        table.add_row(printable(file.path), f"{file.size / 1e6:,.1f}", str(count))
    table.add_section()
    table.add_row(f"{len(files)} files", f"{sum(file.size for file in files) / 1e6:,.1f}", str(sum(shards)))
    return table


def timing(data: TextData, first: Reading, second: Reading) -> Table:
    """Returns the seconds of each part, for the first reading and for a second one from the cache."""
    tokens = sum(len(unit.ids) for unit in first.units)
    table = Table(title=f"timing ({data.tokenizer.name})", title_justify="left")
    table.add_column("part")
    table.add_column("now, s", justify="right")
    table.add_column("again, from the cache, s", justify="right")
    table.add_row("open: find the files, read the validation text", f"{first.opening:.2f}", f"{second.opening:.2f}")
    table.add_row("first batch", f"{first.first_batch:.2f}", f"{second.first_batch:.2f}")
    table.add_row(f"{len(first.units)} row groups, {tokens:,} tokens", f"{first.reading:.2f}", f"{second.reading:.2f}")
    rates = [f"{tokens / reading.reading / 1e6:,.1f}" for reading in (first, second)]
    table.add_row("million tokens per second, in row groups", *rates)
    table.add_row("fetched from the hub, MB", *(f"{reading.fetched_bytes / 1e6:.2f}" for reading in (first, second)))
    return table


def cached(source: HubSource) -> Table:
    """Returns the contents of the cache."""
    cache = source.text.cache
    table = Table(title=f"cache in {cache.directory}", title_justify="left")
    for heading in ("shard", "row groups", "text, MB", "ids, MB", "last use"):
        table.add_column(heading, justify="right")
    stock = cache.stock()
    for number in sorted({stored.number for stored in stock if stored.number < len(source)}):
        kinds = {stored.kind: stored for stored in stock if stored.number == number}
        used = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(max(kind.last_use for kind in kinds.values()) / 1e9))
        row_groups, whole, parts = source.row_groups(number), kinds.pop(TEXT, None), kinds.pop(PARTS, None)
        present = row_groups if whole else parts.files if parts else 0
        sizes = [sum(kind.nbytes for kind in part if kind) / 1e6 for part in ((whole, parts), kinds.values())]
        table.add_row(f"{number:05d}", f"{present} of {row_groups}", *(f"{size:,.2f}" for size in sizes), used)
    table.add_section()
    limit = f"at most {cache.max_shards} shards, {cache.max_bytes / 1e9:g} GB"
    table.add_row("all", "", f"{cache.nbytes / 1e6:,.2f}", "", limit)
    return table


def split(config: DataConfig, units: Sequence[RowGroupTokens]) -> Table:
    """Returns the numbers of documents and tokens for training and for validation."""
    table = Table(title=f"split of {len(units)} row groups", title_justify="left")
    for heading in ("side", "documents", "share", "tokens"):
        table.add_column(heading, justify="left" if heading == "side" else "right")
    digests = np.concatenate([unit.digests for unit in units])
    held_out = int((digests < config.validation_fraction * 2**64).sum())
    for side, count in (("train", len(digests) - held_out), ("validation", held_out)):
        tokens = sum(len(unit.side(config.validation_fraction, side == "validation")) for unit in units)
        table.add_row(side, f"{count:,}", f"{count / max(1, len(digests)):.1%}", f"{tokens:,}")
    return table
