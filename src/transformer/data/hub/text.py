"""The text column of parquet files on the hub, read a row group at a time through the cache.

Each file is divided into shards, runs of row groups of about shard_bytes. The file's footer says which row groups a
shard has; the cache remembers it, so that a later run needs no network. HubText returns a row group's documents from
the cache, or from the hub.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from transformer.data.cache import Shard, ShardCache
from transformer.data.contracts import FetchProgress, Notify
from transformer.data.hub.client import Hub
from transformer.data.hub.errors import Closed, Fault, HubError, HubFile, first_line

T = TypeVar("T")

FOOTERS = 4
"""Footers kept in memory, about a megabyte each: at most as many files as connections are read at once."""

CORRUPT_PATIENCE = 10.0
"""Seconds of retries if the bytes that arrive are not parquet: a faulty proxy may recover, a damaged file does not."""

MAX_ROW_GROUPS = 2**20
"""More row groups than any file has."""


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
        self._progress_lock = threading.Lock()
        self._reported = time.monotonic(), 0

    def __len__(self) -> int:
        """The number of shards."""
        return len(self.pieces)

    def shard(self, number: int, patient: bool = False) -> Shard:
        """Returns a shard. Only if `patient`, a failing network is retried. Raises HubError."""
        if number not in self._shards:
            found = self._find(number, self.hub if patient else self.ahead)
            self._shards.setdefault(number, found)
        return self._shards[number]

    def documents(self, shard: Shard, row_group: int) -> list[str | None]:
        """Returns a row group's documents. Bytes that are not UTF-8 are replaced by U+FFFD, with a message.

        The caller holds the row group's lock. Raises HubError if neither the cache nor the hub has the text.
        """
        column = self.cache.text(shard, row_group)
        if column is None:
            column = self._fetch(shard, row_group, self.hub)
        try:
            return list(column.to_pylist())
        except UnicodeDecodeError:
            contents = column.cast(pa.large_binary()).to_pylist()
        documents = [None if content is None else content.decode("utf-8", "replace") for content in contents]
        damaged = sum(text is not None and text.encode() != was for text, was in zip(documents, contents, strict=True))
        where = f"{self.pieces[shard.number][0].path}, row group {shard.first_group + row_group}"
        self.notify(
            f"{where}: {damaged} of {len(documents)} documents are not UTF-8; U+FFFD replaces their wrong bytes"
        )
        return documents

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

    @contextlib.contextmanager
    def leased(self, shard: Shard) -> Iterator[None]:
        """Holds a lease."""
        self.lease(shard)
        try:
            yield
        finally:
            self.cache.release(shard)

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
        layout = self.cache.recall(key, partial(_layout, pieces=pieces))
        if layout is None:
            layout = self._divided(file, pieces, hub)
            self.cache.record(key, layout)
        first_group, row_groups = layout[piece]
        return Shard(number, f"{source} part {piece + 1} of {pieces}", self.column, first_group, row_groups)

    def _divided(self, file: HubFile, pieces: int, hub: Hub) -> list[tuple[int, int]]:
        """Returns the first row group and the number of row groups of each piece of a file."""
        footer = self._footer(file, hub)
        index = self._column_index(footer, file)
        sizes = [footer.row_group(group).column(index).total_compressed_size for group in range(footer.num_row_groups)]
        members: list[list[int]] = [[] for _ in range(pieces)]
        before, total = 0, max(1, sum(sizes))
        for group, size in enumerate(sizes):
            members[min(pieces - 1, (2 * before + size) * pieces // (2 * total))].append(group)  # by the group's middle
            before += size
        return [(groups[0] if groups else 0, len(groups)) for groups in members]

    def _fetch(self, shard: Shard, row_group: int, hub: Hub) -> Any:
        file, group = self.pieces[shard.number][0], shard.first_group + row_group

        def read(remote: Any) -> Any:
            table = pq.ParquetFile(remote, metadata=self._footer(file, hub), page_checksum_verification=True)
            return table.read_row_group(group, columns=[self.column], use_threads=False)[0]

        column = self._parquet(f"{file.path}, row group {group}", file, hub, read)
        self.cache.put_text(shard, row_group, column)
        self._report_progress(shard)
        return column

    def _parquet(self, what: str, file: HubFile, hub: Hub, read: Callable[[Any], T]) -> T:
        """Returns the result of `read`, which is given the file. Bytes that are not parquet are requested again."""

        def attempt() -> T:
            with hub.open(self.commit, file) as remote:
                try:
                    return read(remote)
                except (HubError, Closed):
                    raise
                except Exception as error:  # pyarrow's errors of damaged bytes have many types
                    self._footers.pop(file.path, None)  # it may be the damaged part
                    raise Fault(f"its bytes are damaged: {first_line(error)}") from error

        return hub.retry(what, attempt, patience=CORRUPT_PATIENCE)

    def _footer(self, file: HubFile, hub: Hub) -> Any:
        with self._footers_lock:  # held while the footer is fetched, so that no two threads fetch it
            if file.path not in self._footers:
                footer = self._parquet(f"the footer of {file.path}", file, hub, pq.read_metadata)
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

    def _report_progress(self, shard: Shard) -> None:
        """Emits progress at most twice per second, with the bytes per second since the last time."""
        with self._progress_lock:
            (last, before), (now, total) = self._reported, (time.monotonic(), self.bytes_fetched)
            if now - last < 0.5:
                return
            self._reported = now, total
        done = sum(self.cache.has_text(shard, group) for group in range(shard.row_groups))
        rate = (total - before) / (now - last)
        self.notify(FetchProgress(shard.number, done, shard.row_groups, rate, self.cache.nbytes))


def _layout(values: Any, pieces: int) -> list[tuple[int, int]]:
    """Returns the first row group and the number of row groups of each piece of a file, as HubText recorded them."""
    layout = [(first, count) for first, count in values]
    if len(layout) != pieces or not all(type(n) is int and 0 <= n < MAX_ROW_GROUPS for pair in layout for n in pair):
        raise ValueError("not the pieces of a file")
    return layout
