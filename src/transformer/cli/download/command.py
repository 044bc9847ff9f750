"""The download command; commands/download.py documents it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from transformer.cli.console import console
from transformer.cli.download.options import DownloadOptions, token_count
from transformer.cli.download_progress import fetch_numbers, notifier
from transformer.cli.formatting import counted
from transformer.cli.options import program
from transformer.data.contracts import Place
from transformer.data.hub.ahead import CONNECTIONS, Leases
from transformer.data.open import open_dataset
from transformer.dataset import ReadOrder
from transformer.fineweb_dataset import HubSource


def main(options: DownloadOptions) -> None:
    config = options.data
    tokens = token_count(options.tokens) or 0
    wanted = tokens + config.shuffle_rows * config.seq_length  # a run reads one shuffle window ahead
    out = console()
    progress = Progress(
        BarColumn(bar_width=20),
        TextColumn("{task.fields[tokens]}  {task.fields[numbers]}"),
        TimeRemainingColumn(compact=True),
        console=out,
        disable=not out.is_terminal,
    )
    task = progress.add_task("tokens", total=wanted, tokens="", numbers="")
    notify = notifier(progress.console, lambda message: progress.update(task, numbers=fetch_numbers(message)))
    with progress, contextlib.closing(open_dataset(config, notify=notify)) as data:
        source = data.train
        assert isinstance(source, HubSource)
        found = fetch(
            source, options.seed, wanted, lambda n: progress.update(task, completed=n, tokens=f"{n:,} tokens")
        )
        cache = source.text.cache
        shards = counted(len({stored.number for stored in cache.stock()}), "shard")
        if found < tokens:
            out.print(f"{config.dataset} has {found:,} tokens of training text, not {tokens:,}: that is all there is")
        out.print(
            f"{found:,} tokens of training text ({data.tokenizer.name}) are in {cache.directory}, which holds "
            f"{shards} in {cache.nbytes / 1e9:.2f} GB; train without a network: "
            f"{program()} train --seed {options.seed} with the same settings"
        )


def fetch(source: HubSource, seed: int, wanted: int, show: Callable[[int], None]) -> int:
    """Fetches the row groups that a run with this seed reads first, up to `wanted` tokens or one pass over the dataset.

    Returns the number of tokens.

    Raises ValueError if the cache is too small to keep them all.
    """
    found, one_pass_done = 0, False
    seen: list[Place] = []
    order, leases = ReadOrder(source, seed), Leases(source.text)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        while found < wanted and not one_pass_done:
            places: list[Place] = []
            while len(places) < CONNECTIONS and (place := source.next_place(order, patient=not places)):
                if one_pass_done := place.epoch > 0:
                    break
                places.append(place)
            for place, row_group in zip(
                places, pool.map(lambda place: source.load(place, leases), places), strict=True
            ):
                if seen and place.shard != seen[-1].shard:
                    check_kept(source, seen, found)
                seen.append(place)
                found += len(row_group.side(source.fraction, validation=False))
                show(found)
            if places:
                leases.release_before(places[-1])
    check_kept(source, seen, found)
    return found


def check_kept(source: HubSource, places: Sequence[Place], found: int) -> None:
    """Raises ValueError if the cache has already evicted the text of one of the places."""
    text = source.text
    if not all(text.cache.has_text(text.shard(place.shard), place.row_group) for place in places):
        raise ValueError(
            f"{found:,} tokens exceed the cache limit ({text.cache.max_shards} shards, "
            f"{text.cache.max_bytes / 1e9:g} GB): give a larger --cache-shards and --cache-gb, here and to the run"
        )
