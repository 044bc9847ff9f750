"""The test-fineweb command; commands/test_fineweb.py documents it."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from transformer.cli.console import console
from transformer.cli.download_progress import fetch_numbers, notifier
from transformer.cli.fineweb.options import FineWebOptions
from transformer.cli.fineweb.report import Reading, cached, hub, split, timing
from transformer.config import DataConfig
from transformer.data.contracts import TextData
from transformer.data.hub.ahead import Leases
from transformer.data.open import open_dataset
from transformer.dataset import PackedBatches, ReadOrder
from transformer.fineweb_dataset import LOADERS, HubSource

BATCH_ROWS = 8


def main(options: FineWebOptions) -> None:
    dataset = options.data.dataset
    if not options.data.is_on_hub:
        raise ValueError(f"{dataset} is not on the hub: this command checks only fineweb and hf:OWNER/NAME")
    out = console()
    with opened(options.data, out) as (data, source, opening):
        out.print(hub(source))
        first = read(data, source, options, opening)
    # Opened again by commit: nothing is left in memory, and the hub is not contacted.
    with opened(replace(options.data, revision=str(data.revision)), out) as (data, source, opening):
        second = read(data, source, options, opening)
        out.print(timing(data, first, second))
        out.print(cached(source))
    out.print(split(options.data, first.units))
    tokens = first.units[0].side(options.data.validation_fraction, validation=False)
    out.print(Text(f"the first {options.sample_tokens} tokens of training text", style="italic"))
    out.print(Text(data.tokenizer.decode(tokens[: options.sample_tokens].tolist())))


@contextlib.contextmanager
def opened(config: DataConfig, out: Console) -> Iterator[tuple[TextData, HubSource, float]]:
    """Opens the dataset; yields it with the seconds that opening took."""
    with out.status(Text(f"opening {config.dataset}")) as status:
        notify = notifier(out, lambda message: status.update(Text(f"fetching {fetch_numbers(message)}")))
        started = time.perf_counter()
        with contextlib.closing(open_dataset(config, notify=notify)) as data:
            assert isinstance(data.train, HubSource)
            data.train.fetches_ahead = False
            yield data, data.train, time.perf_counter() - started


def read(data: TextData, source: HubSource, options: FineWebOptions, opening: float) -> Reading:
    """Reads a first batch, then further row groups one after another."""
    started = time.perf_counter()
    rows = PackedBatches(source, options.data.seq_length, BATCH_ROWS, options.seed, window_rows=BATCH_ROWS)
    with contextlib.closing(iter(rows)) as batches:
        next(batches)
    first_batch = time.perf_counter() - started
    started = time.perf_counter()
    leases = Leases(source.text)
    units = [
        source.load(place, leases)
        for place in itertools.islice(ReadOrder(source, options.seed), LOADERS, LOADERS + options.units)
    ]
    leases.close()
    return Reading(opening, first_batch, time.perf_counter() - started, source.text.bytes_fetched, units)
