"""The text column of parquet files on the hub, read a row group at a time through the cache, and fetched ahead.

Each file is divided into shards, runs of row groups of about shard_bytes. The file's footer says which row groups a
shard has; the cache remembers it, so that a later run needs no network. HubText returns a row group's text from the
cache, or from the hub. FetchAhead brings row groups into the cache before they are read: the rest of the shard that is
being read and, once half of it is read, the next one.
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
"""Row groups fetched at once, so that the network's latency is not paid for each in turn."""

FOOTERS = 4
"""Footers kept in memory, about a megabyte each: at most as many files as connections are read at once."""

PAUSE_SECONDS = 1.0, 60.0
"""First and longest pause of fetching ahead after failures. The reader itself does not pause."""

OPENING_PATIENCE = 6.0
"""Seconds of retries when a dataset is opened: a network that fails then is most likely absent."""

FINEWEB = "HuggingFaceFW/fineweb-edu"
OFFLINE = "without a network, train on the bundled text with --dataset shakespeare, or on your own with --dataset PATH"


def open_hub_text(config: DataConfig, notify: Notify = silent) -> HubText:
    """Opens the text of the configured hub dataset. Without a network, the cache's listing of its files is used.

    Raises HubError, in one line, if the dataset cannot be found or reached.
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
    """Returns the folder of a dataset: data/OWNER_NAME_cache, or a longer name for a subset or another split.

    Each subset and split has its own folder, since each numbers its shards from 0. Repositories have no "--" in their
    names, so it separates hf:a/b --subset c from hf:a/b_c; a doubled "_" in the owner separates hf:a_b/c from both.
    """
    owner, _, name = repo.partition("/")
    parts = [f"{owner.replace('_', '__')}_{name}"]
    parts += [config.subset.replace("/", "--")] if config.subset else []
    parts += [f"split-{config.split}"] if config.split != "train" else []
    return f"data/{'--'.join(parts)}_cache"


def find_files(
    hub: Hub, cache: ShardCache, subset: str | None, split: str, revision: str, notify: Notify
) -> tuple[str, list[HubFile]]:
    """Returns the commit of a revision, and its files. Without a network, those that the cache remembers."""
    name = f"{hub.repo} {subset} {split}"
    try:
        commit = hub.commit(revision)
        listing = cache.recall(f"{name} {commit}")
        if listing is None:  # a commit never changes: its files are listed once
            listing = {"commit": commit, "files": [asdict(file) for file in hub.parquet_files(commit, subset, split)]}
            cache.record(f"{name} {commit}", listing)
        if revision != commit:
            cache.record(f"{name} {revision}", listing)
    except Unreachable as error:
        listing = cache.recall(f"{name} {revision}")
        if listing is None:
            raise HubError(f"{hub.repo} cannot be reached ({error.reason}); {OFFLINE}") from error
        known = listing["commit"][:12]
        notify(f"the hub cannot be reached: continuing with the text in {cache.directory}, of commit {known}")
    return listing["commit"], [HubFile(**file) for file in listing["files"]]


class HubText:
    """The text column of parquet files on the hub, as shards of row groups."""

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
        self.ahead = Hub(hub.repo, patience=0.0)  # for requests that nobody waits for: a failure is not retried
        # A shard is piece k of n of a file, so that file sizes alone number the shards: no file has to be opened.
        counts = [max(1, round(file.size / shard_bytes)) for file in files]
        self.pieces = [(file, piece, n) for file, n in zip(files, counts, strict=True) for piece in range(n)]
        self.closed = threading.Event()
        self._footers: dict[str, Any] = {}
        self._footers_lock = threading.Lock()
        self._shards: dict[int, Shard] = {}
        self._rate = _Rate()

    def __len__(self) -> int:
        """The number of shards."""
        return len(self.pieces)

    def shard(self, number: int, patient: bool = False) -> Shard:
        """Returns a shard. Only if `patient`, a failing network is retried. Raises HubError."""
        if number not in self._shards:
            found = self._find(number, self.hub if patient else self.ahead)
            self._shards.setdefault(number, found)
        return self._shards[number]

    def text(self, shard: Shard, row_group: int) -> Any:
        """Returns a row group's text, a pyarrow array of strings and nulls. The caller holds its lock.

        Raises HubError if neither the cache nor the hub has it.
        """
        column = self.cache.text(shard, row_group)
        return self._fetch(shard, row_group, self.hub) if column is None else column

    def ensure(self, shard: Shard, row_group: int) -> None:
        """Brings a row group into the cache, unless it is there or another thread or process is fetching it."""
        if not self.cache.has_text(shard, row_group):
            with self.cache.try_lock(shard, row_group) as held:
                if held and not self.cache.has_text(shard, row_group):
                    self._fetch(shard, row_group, self.ahead)

    @contextlib.contextmanager
    def lock(self, shard: Shard, row_group: int) -> Iterator[None]:
        """Waits for the row group's lock and holds it. Raises Closed if the text is closed meanwhile."""
        while True:
            with self.cache.try_lock(shard, row_group) as held:
                if held:
                    yield
                    return
            if self.closed.wait(0.01):
                raise Closed

    def lease(self, shard: Shard) -> None:
        """Keeps the shard in the cache until it is released, and makes room for its text."""
        file, _, pieces = self.pieces[shard.number]
        self.cache.lease(shard, file.size // pieces)

    @property
    def bytes_fetched(self) -> int:
        """Bytes of files received from the hub."""
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
            self.cache.record(key, layout)
        first_group, row_groups = layout[piece]
        return Shard(number, f"{source} part {piece + 1} of {pieces}", self.column, first_group, row_groups)

    def _layout(self, file: HubFile, pieces: int, hub: Hub) -> list[list[int]]:
        """Returns the first row group and the number of row groups of each piece of a file."""
        footer = self._footer(file, hub)
        index = self._column_index(footer, file)
        sizes = [footer.row_group(group).column(index).total_compressed_size for group in range(footer.num_row_groups)]
        layout = [[0, 0] for _ in range(pieces)]
        before, total = 0, max(1, sum(sizes))
        for group, size in enumerate(sizes):
            piece = layout[min(pieces - 1, (2 * before + size) * pieces // (2 * total))]  # that of the group's middle
            piece[0] = piece[0] if piece[1] else group
            piece[1] += 1
            before += size
        return layout

    def _fetch(self, shard: Shard, row_group: int, hub: Hub) -> Any:
        file = self.pieces[shard.number][0]
        with hub.open(self.commit, file) as remote:
            table = pq.ParquetFile(remote, metadata=self._footer(file, hub))
            column = table.read_row_group(shard.first_group + row_group, columns=[self.column], use_threads=False)[0]
        self.cache.put_text(shard, row_group, column)
        if (rate := self._rate.update(self.bytes_fetched)) is not None:
            done = sum(self.cache.has_text(shard, group) for group in range(shard.row_groups))
            self.notify(FetchProgress(shard.number, done, shard.row_groups, rate, self.cache.nbytes))
        return column

    def _footer(self, file: HubFile, hub: Hub) -> Any:
        with self._footers_lock:  # held while the footer is fetched, so that no two threads fetch it
            if file.path not in self._footers:
                with hub.open(self.commit, file) as remote:
                    try:
                        footer = pq.read_metadata(remote)
                    except pa.ArrowException as error:
                        raise HubError(f"{file.path} on the hub is not a readable parquet file: {error}") from error
                while len(self._footers) >= FOOTERS:
                    del self._footers[next(iter(self._footers))]
                self._footers[file.path] = footer
            return self._footers[file.path]

    def _column_index(self, footer: Any, file: HubFile) -> int:
        schema = footer.schema.to_arrow_schema()
        if self.column not in schema.names:
            raise HubError(f"{file.path} has no column {self.column!r}; its columns: {', '.join(schema.names)}")
        kind = schema.field(self.column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise HubError(f"{file.path}: column {self.column!r} is {kind}, wanted string")
        paths = [footer.schema.column(index).path for index in range(len(footer.schema))]
        return paths.index(self.column)


class _Rate:
    """Bytes per second received from the hub, over the last three seconds."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, int]] = []
        self._lock = threading.Lock()

    def update(self, total: int) -> float | None:
        """Returns the rate, given the bytes so far; None if it was updated less than a quarter of a second ago."""
        now = time.monotonic()
        with self._lock:
            if self.samples and now - self.samples[-1][0] < 0.25:
                return None
            self.samples = [*(sample for sample in self.samples if now - sample[0] < 3.0), (now, total)]
            (start, before), (end, after) = self.samples[0], self.samples[-1]
            return (after - before) / (end - start) if end > start else 0.0


class Leases:
    """The shards that a stream reads or will soon read. They stay in the cache until the reader has passed them."""

    def __init__(self, text: HubText) -> None:
        self.text = text
        self._lock = threading.Lock()
        self._held: dict[tuple[int, int], Shard] = {}
        self._closed = False

    def enter(self, place: Place) -> Shard:
        """Returns the place's shard, and leases it if this stream has not done so."""
        shard = self.text.shard(place.shard)
        with self._lock:
            if _visit(place) not in self._held and not self._closed:
                self.text.lease(shard)
                self._held[_visit(place)] = shard
        return shard

    def release_before(self, place: Place) -> None:
        """Releases the shards that were read before the place's."""
        with self._lock:
            for visit in [visit for visit in self._held if visit < _visit(place)]:
                self.text.cache.release(self._held.pop(visit))

    def close(self) -> None:
        """Releases all shards; later calls of `enter` lease none."""
        with self._lock:
            self._closed = True
            while self._held:
                self.text.cache.release(self._held.popitem()[1])


def _visit(place: Place) -> tuple[int, int]:
    """A shard is visited once in each epoch: the epoch, and the shards before it."""
    return place.epoch, place.shards_before


class FetchAhead:
    """Threads that bring the row groups of a read order into the cache, until they are stopped."""

    def __init__(self, text: HubText, order: ReadOrder, leases: Leases, connections: int) -> None:
        self.text, self.order, self.leases = text, order, leases
        self._order_lock = threading.Lock()
        self._moved = threading.Condition()
        self._reader: Place | None = None
        self._next: Place | None = None
        self._stopped = False
        self._is_failing = False
        self._threads = [threading.Thread(target=self._run, name=f"fetch-{n}") for n in range(connections)]
        for thread in self._threads:
            thread.start()

    def reader_at(self, place: Place) -> None:
        """Sets the position of the reader, from which `_is_near` decides how far to fetch."""
        with self._moved:
            self._reader = place
            self._moved.notify_all()

    def stop(self) -> None:
        """Lets each thread end after its current request."""
        with self._moved:
            self._stopped = True
            self._moved.notify_all()

    def join(self) -> None:
        """Stops and waits for the threads to end; HubText.stop() makes that quick."""
        self.stop()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        pause, longest = PAUSE_SECONDS
        while not self._stopped:
            try:
                if (place := self._take()) is not None:
                    self.text.ensure(self.leases.enter(place), place.row_group)
                self._is_failing = False
                pause, _ = PAUSE_SECONDS
            except Closed:
                return
            except (HubError, OSError) as error:  # not fatal: the reader fetches the row group when it needs it
                if not self._is_failing:
                    self.text.notify(f"fetching ahead fails, continuing with the text in the cache: {error}")
                self._is_failing = True
                self.text.closed.wait(pause)
                pause = min(2 * pause, longest)

    def _take(self) -> Place | None:
        """Returns the next place as soon as it is near enough to the reader; None after stop()."""
        with self._order_lock:
            if self._next is None:
                self._next = next(self.order)
            place = self._next
            with self._moved:
                self._moved.wait_for(lambda: self._stopped or self._is_near(place))
                if self._stopped:
                    return None
            self._next = None
            return place

    def _is_near(self, place: Place) -> bool:
        """Whether the place is in the reader's shard or, once half of that shard is read, in the next one."""
        if self._reader is None:
            return _visit(place) == (self.order.start.epoch, self.order.start.shard)
        epoch, shard = _visit(self._reader)
        half_read = self._reader.row_groups_before * 2 >= self.text.shard(self._reader.shard).row_groups
        following = (epoch, shard + 1) if shard + 1 < len(self.text) else (epoch + 1, 0)
        return _visit(place) <= (following if half_read else (epoch, shard))
