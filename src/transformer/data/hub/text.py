"""The text of parquet files on the hub, a row group at a time, kept on disk and fetched ahead of its use.

A file of the hub is cut into *shards*, runs of whole row groups of about shard_bytes; a row group is a *unit*. Which
row groups a shard has is known from the file's footer, or, without a network, from the cache. HubText gives a unit's
text from the cache or else from the hub; FetchAhead brings units into the cache before anybody asks, in the order of
a walk: the rest of the shard that is read, and the next one once half of it is read.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transformer.config import DataConfig
from transformer.data.cache import Shard, ShardCache
from transformer.data.contracts import FetchProgress, Notify, Place, silent
from transformer.data.hub.client import Hub
from transformer.data.hub.errors import Closed, HubError, HubFile, Unreachable
from transformer.dataset import ReadOrder

CONNECTIONS = 4
"""Row groups fetched at once: one at a time would wait for the network's delay again and again."""

FOOTERS = 4
"""Footers kept in memory, of a megabyte or so each: as many files are read at once at most."""

PAUSE_SECONDS = 1.0, 60.0
"""How long fetching ahead rests after the first failure and at most; who needs a unit at once fetches it himself."""

OPENING_PATIENCE = 6.0
"""Seconds for which a network that fails at the very start is tried again: most likely there is none."""

FINEWEB = "HuggingFaceFW/fineweb-edu"
OFFLINE = "without a network, train on the bundled text with --dataset shakespeare, or on your own with --dataset PATH"


def open_hub_text(config: DataConfig, notify: Notify = silent) -> HubText:
    """Opens the text of the config's hub dataset; what the cache knows of it is used where there is no network.

    Raises HubError, in one line, where the dataset cannot be found or reached.
    """
    repo, subset = config.dataset.removeprefix("hf:"), config.subset
    if config.dataset == "fineweb":
        repo, subset = FINEWEB, config.subset or "sample-10BT"
    directory = Path(config.cache_dir or ("data/fineweb_cache" if repo == FINEWEB else default_cache(repo, config)))
    cache = ShardCache(directory, config.cache_shards, int(config.cache_gb * 1e9), notify)
    try:
        hub = Hub(repo, patience=min(config.network_patience, OPENING_PATIENCE), notify=notify)
        commit, files = find_files(hub, cache, subset, config.split, config.revision, notify)
        hub.patience = config.network_patience
        return HubText(hub, commit, files, cache, config.text_column, round(config.shard_mb * 1e6), notify)
    except BaseException:
        cache.close()
        raise


def default_cache(repo: str, config: DataConfig) -> str:
    """Returns the folder for a dataset: every subset and split has its own, since each numbers its shards from 0."""
    names = [
        repo.replace("/", "_"),
        *filter(None, [config.subset]),
        *([] if config.split == "train" else [config.split]),
    ]
    return f"data/{'_'.join(names)}_cache"


def find_files(
    hub: Hub, cache: ShardCache, subset: str | None, split: str, revision: str, notify: Notify
) -> tuple[str, list[HubFile]]:
    """Returns the commit that a revision stands for, and its files; without a network, those of the last time."""
    name = f"{hub.repo} {subset} {split}"
    try:
        commit = hub.commit(revision)
        listing = cache.recall(f"{name} {commit}")
        if listing is None:  # a commit never changes: what is known of it is not asked again
            listing = {"commit": commit, "files": [asdict(file) for file in hub.parquet_files(commit, subset, split)]}
            cache.record(f"{name} {commit}", listing)
        if revision != commit:
            cache.record(f"{name} {revision}", listing)
    except Unreachable as error:
        listing = cache.recall(f"{name} {revision}")
        if listing is None:
            raise HubError(f"{hub.repo} cannot be reached ({error.reason}); {OFFLINE}") from error
        known = listing["commit"][:12]
        notify(f"the hub cannot be reached: going on with what is in {cache.directory}, of commit {known}")
    return listing["commit"], [HubFile(**file) for file in listing["files"]]


class HubText:
    """The text column of remote parquet files as shards of units, through a cache."""

    def __init__(
        self,
        hub: Hub,
        commit: str,
        files: Sequence[HubFile],
        cache: ShardCache,
        column: str,
        shard_bytes: int,
        notify: Notify,
    ) -> None:
        self.hub, self.commit, self.files, self.cache = hub, commit, files, cache
        self.column, self.notify = column, notify
        self.ahead = Hub(hub.repo, patience=0.0)  # for what nobody waits for: a failure is not tried again at once
        # A shard is piece k of n of a file: so shards can be numbered from the sizes alone, before any file is opened.
        counts = [max(1, round(file.size / shard_bytes)) for file in files]
        self.pieces = [(file, piece, n) for file, n in zip(files, counts, strict=True) for piece in range(n)]
        self.closed = threading.Event()
        self._footers: dict[str, Any] = {}
        self._footers_lock = threading.Lock()
        self._shards: dict[int, Shard] = {}
        self._meter = _Meter()

    def __len__(self) -> int:
        """The number of shards."""
        return len(self.pieces)

    def shard(self, number: int, patient: bool = False) -> Shard:
        """Which row groups a shard has; from memory, the cache, or the file's footer.

        Raises HubError where it is the footer and the hub does not give it: at the first failure, unless `patient`.
        """
        if number not in self._shards:
            found = self._find(number, self.hub if patient else self.ahead)
            self._shards.setdefault(number, found)
        return self._shards[number]

    def text(self, shard: Shard, unit: int) -> Any:
        """A unit's text, a pyarrow array of strings and nulls. The caller holds the unit's lock.

        Raises HubError where it is not in the cache and the hub does not give it.
        """
        column = self.cache.text(shard, unit)
        return self._fetch(shard, unit, self.hub) if column is None else column

    def ensure(self, shard: Shard, unit: int) -> None:
        """Brings a unit into the cache, unless it is there or somebody is bringing it."""
        if not self.cache.has_text(shard, unit):
            with self.cache.lock(shard, unit, blocking=False) as held:
                if held and not self.cache.has_text(shard, unit):
                    self._fetch(shard, unit, self.ahead)

    @contextlib.contextmanager
    def lock(self, shard: Shard, unit: int) -> Iterator[None]:
        """Holds the unit against all other threads and processes. Raises Closed if close() comes first."""
        while True:
            with self.cache.lock(shard, unit, blocking=False) as held:
                if held:
                    yield
                    return
            if self.closed.wait(0.01):
                raise Closed

    def make_room(self, shard: Shard) -> None:
        """Makes room in the cache for the shard's text."""
        file, _, pieces = self.pieces[shard.number]
        self.cache.make_room(shard, file.size // pieces)

    @property
    def bytes_fetched(self) -> int:
        """Bytes of files that came from the hub."""
        return self.hub.bytes_fetched + self.ahead.bytes_fetched

    def stop(self) -> None:
        """Interrupts fetches in progress; later ones raise Closed."""
        self.closed.set()
        self.hub.close()
        self.ahead.close()

    def close(self) -> None:
        """Stops, and closes the cache."""
        self.stop()
        self.cache.close()

    def _find(self, number: int, hub: Hub) -> Shard:
        file, piece, pieces = self.pieces[number]
        source = f"hf://datasets/{self.hub.repo}/{file.path}@{file.oid}"
        key = f"{source} {self.column} in {pieces}"
        layout = self.cache.recall(key)
        if layout is None:
            layout = self._layout(file, pieces, hub)
            self.cache.record(key, layout)  # so that a later run needs no footer, and perhaps no network
        first_group, units = layout[piece]
        return Shard(number, f"{source} part {piece + 1} of {pieces}", self.column, first_group, units)

    def _layout(self, file: HubFile, pieces: int, hub: Hub) -> list[list[int]]:
        """Returns first row group and number of row groups of each piece of a file."""
        footer = self._footer(file, hub)
        index = self._column_index(footer, file)
        sizes = [footer.row_group(group).column(index).total_compressed_size for group in range(footer.num_row_groups)]
        layout = [[0, 0] for _ in range(pieces)]
        before, total = 0, max(1, sum(sizes))
        for group, size in enumerate(sizes):
            piece = layout[min(pieces - 1, (2 * before + size) * pieces // (2 * total))]  # where its middle lies
            piece[0] = piece[0] if piece[1] else group
            piece[1] += 1
            before += size
        return layout

    def _fetch(self, shard: Shard, unit: int, hub: Hub) -> Any:
        file = self.pieces[shard.number][0]
        with hub.open(self.commit, file) as remote:
            table = pq.ParquetFile(remote, metadata=self._footer(file, hub))
            column = table.read_row_group(shard.first_group + unit, columns=[self.column], use_threads=False)[0]
        self.cache.put_text(shard, unit, column)
        self._tell_progress(shard)
        return column

    def _footer(self, file: HubFile, hub: Hub) -> Any:
        with self._footers_lock:  # also while it is read, so that no two threads fetch it
            if file.path not in self._footers:
                footer = self._read_footer(file, hub)
                while len(self._footers) >= FOOTERS:
                    del self._footers[next(iter(self._footers))]
                self._footers[file.path] = footer
            return self._footers[file.path]

    def _read_footer(self, file: HubFile, hub: Hub) -> Any:
        with hub.open(self.commit, file) as remote:
            try:
                return pq.read_metadata(remote)
            except pa.ArrowException as error:
                raise HubError(f"{file.path} on the hub is not a readable parquet file: {error}") from error

    def _column_index(self, footer: Any, file: HubFile) -> int:
        schema = footer.schema.to_arrow_schema()
        if self.column not in schema.names:
            raise HubError(f"{file.path} has no column {self.column!r}; its columns: {', '.join(schema.names)}")
        kind = schema.field(self.column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise HubError(f"{file.path}: column {self.column!r} is {kind}, wanted string")
        paths = [footer.schema.column(index).path for index in range(len(footer.schema))]
        return paths.index(self.column)

    def _tell_progress(self, shard: Shard) -> None:
        if (rate := self._meter.rate(self.bytes_fetched)) is not None:
            done = sum(self.cache.has_text(shard, unit) for unit in range(shard.row_groups))
            self.notify(FetchProgress(shard.number, done, shard.row_groups, rate, self.cache.nbytes))


class _Meter:
    """Bytes a second that come from the hub, over the last seconds."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, int]] = []
        self._lock = threading.Lock()

    def rate(self, total: int, every: float = 0.25, over: float = 3.0) -> float | None:
        """Returns the rate, given the bytes so far; None where it was asked for just before."""
        now = time.monotonic()
        with self._lock:
            if self.samples and now - self.samples[-1][0] < every:
                return None
            self.samples = [sample for sample in self.samples if now - sample[0] < over]
            self.samples.append((now, total))
            (start, before), (end, after) = self.samples[0], self.samples[-1]
            return (after - before) / (end - start) if end > start else 0.0


class Leases:
    """The shards that a walk is at or will soon come to: they stay in the cache until the reader is past them."""

    def __init__(self, text: HubText) -> None:
        self.text = text
        self._lock = threading.Lock()
        self._held: dict[tuple[int, int], Shard] = {}
        self._closed = False

    def enter(self, place: Place) -> Shard:
        """Leases the place's shard, if this walk has not done so, and makes room for the rest of it."""
        shard = self.text.shard(place.shard)
        with self._lock:
            if position(place) not in self._held and not self._closed:
                self.text.cache.pin(shard)
                self._held[position(place)] = shard
                self.text.make_room(shard)
        return shard

    def release_before(self, place: Place) -> None:
        """Lets go of the shards that come before the place's."""
        with self._lock:
            for past in [held for held in self._held if held < position(place)]:
                self.text.cache.unpin(self._held.pop(past))

    def close(self) -> None:
        """Lets go of all, and pins no more."""
        with self._lock:
            self._closed = True
            while self._held:
                self.text.cache.unpin(self._held.popitem()[1])


def position(place: Place) -> tuple[int, int]:
    """How many shards a walk has come past: by pass, and in the pass."""
    return place.epoch, place.shards_before


class FetchAhead:
    """Threads that bring what a walk comes to into the cache, until close()."""

    def __init__(self, text: HubText, walk: ReadOrder, pins: Leases, connections: int) -> None:
        self.text, self.walk, self.pins = text, walk, pins
        self._turn = threading.Lock()
        self._moved = threading.Condition()
        self._reader: Place | None = None
        self._next: Place | None = None
        self._stopped = False
        self._failing = False
        self._threads = [threading.Thread(target=self._run, name=f"fetch-{n}") for n in range(connections)]
        for thread in self._threads:
            thread.start()

    def reader_at(self, place: Place) -> None:
        """Tells where the reader is: fetching goes as far as the end of its shard, and later of the next one."""
        with self._moved:
            self._reader = place
            self._moved.notify_all()

    def stop(self) -> None:
        """Lets each thread end after what it is at."""
        with self._moved:
            self._stopped = True
            self._moved.notify_all()

    def join(self) -> None:
        """Waits for the threads to end; HubText.close() makes that quick."""
        self.stop()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        pause, longest = PAUSE_SECONDS
        while not self._stopped:
            try:
                if (place := self._take()) is not None:
                    self.text.ensure(self.pins.enter(place), place.row_group)
                self._failing = False
                pause, _ = PAUSE_SECONDS
            except Closed:
                return
            except (HubError, OSError) as error:  # the reader fetches the unit when it needs it
                if not self._failing:
                    self.text.notify(f"fetching ahead fails, going on with what is here: {error}")
                self._failing = True
                self.text.closed.wait(pause)
                pause = min(2 * pause, longest)

    def _take(self) -> Place | None:
        """Returns the next place as soon as it is near enough to the reader; None when stopped."""
        with self._turn:
            if self._next is None:
                self._next = next(self.walk)
            place = self._next
            with self._moved:
                self._moved.wait_for(lambda: self._stopped or self._is_near(place))
                if self._stopped:
                    return None
            self._next = None
            return place

    def _is_near(self, place: Place) -> bool:
        if self._reader is None:
            return place.shards_before == self.walk.start.shard and place.epoch == self.walk.start.epoch
        half_read = self._reader.row_groups_before * 2 >= self.text.shard(self._reader.shard).row_groups
        epoch, shard = position(self._reader)
        following = (epoch, shard + 1) if shard + 1 < len(self.text) else (epoch + 1, 0)
        return position(place) <= (following if half_read else (epoch, shard))
