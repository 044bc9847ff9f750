"""ShardCache: row groups are stored, read and merged, and the least recently used shards are removed.

Every file is verified when it is read. A damaged file, or one that holds another text, is reported in one line, removed
and treated as absent, so its text is fetched again. cache_metadata.json holds only what the hub would answer again. If
the disk is full, old shards are removed; if that does not help, nothing more is stored and the run continues.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from transformer.config import DataConfig

from . import shard_files, token_files
from .shard_files import FORMAT, PARTS, TEXT, Shard, Stored, row_group_path, shard_path
from .shared_folder import SharedFolder
from .token_files import RowGroupTokens

LOCKS = 64
"""Locks for row groups: few, so that their files stay few; many, so that two row groups rarely share one."""

T = TypeVar("T")


class ShardCache:
    """The cache in `directory`, for any number of threads. Raises ValueError if the directory cannot be written.

    `notify` receives a line about each damaged file and about a full disk. It must not call the cache.
    """

    def __init__(
        self,
        directory: Path,
        max_shards: int = DataConfig.cache_shards,
        max_bytes: int = int(DataConfig.cache_gb * 1e9),
        notify: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.directory, self.max_shards, self.max_bytes, self.notify = directory, max_shards, max_bytes, notify
        self.metadata_path = directory / "cache_metadata.json"
        self._folder = SharedFolder(directory)
        self._write_failed = False

    def close(self) -> None:
        """Ends all leases. The stored files remain."""
        self._folder.close()

    def try_lock(self, shard: Shard, row_group: int) -> contextlib.AbstractContextManager[bool]:
        """Holds a row group against all threads and processes; yields False if it is held elsewhere.

        Row groups share LOCKS locks, so a thread holds one at a time. Neighbours never share a lock.
        """
        return self._folder.try_lock(f"row_group_{(shard.number * 97 + row_group) % LOCKS:02d}")

    # Text and tokens

    def has_text(self, shard: Shard, row_group: int) -> bool:
        """Whether a file with the row group's text exists. Only `text` verifies the file."""
        return self._whole(shard).is_file() or row_group_path(self.directory, shard, row_group).is_file()

    def text(self, shard: Shard, row_group: int) -> Any | None:
        """Returns the documents, a pyarrow ChunkedArray of large_string, or None if they are not in the cache."""
        whole = partial(shard_files.read, identity=shard.identity(unit=None), row_groups=[row_group])
        for _ in range(2):  # the part may be merged after the first read of the shard's file
            columns = self._read(self._whole(shard), whole, shard) or self._part(shard, row_group)
            if columns:
                return columns[0]
        return None

    def put_text(self, shard: Shard, row_group: int, column: Any) -> None:
        """Stores the documents, a pyarrow array of strings. The last row group of a shard to arrive merges all."""
        column = shard_files.checked_column(column)
        if self.text(shard, row_group) is None:
            write = partial(shard_files.write, identity=shard.identity(unit=row_group), columns=[column])
            if self._write(row_group_path(self.directory, shard, row_group), write, shard, column.nbytes):
                self._merge(shard)

    def tokens(self, shard: Shard, row_group: int, encoding: str) -> RowGroupTokens | None:
        """Returns the token ids, or None. An `encoding` name always means the same vocabulary."""
        path = row_group_path(self.directory, shard, row_group, encoding)
        return self._read(path, partial(token_files.read, label=shard.label(row_group, encoding)), shard)

    def put_tokens(self, shard: Shard, row_group: int, encoding: str, tokens: RowGroupTokens) -> None:
        """Stores the token ids, after removing the least recently used files if the cache is too large."""
        path = row_group_path(self.directory, shard, row_group, encoding)
        self._evict(shard, tokens.nbytes)
        write = partial(token_files.write, tokens=tokens, label=shard.label(row_group, encoding))
        self._write(path, write, shard, tokens.nbytes)

    def documents(self, name: str, identity: Mapping[str, Any]) -> list[Any]:
        """Returns the columns that `put_documents` stored, or [] if they are not in the cache."""
        return self._read(self.directory / name, partial(shard_files.read, identity=identity)) or []

    def put_documents(self, name: str, identity: Mapping[str, Any], columns: Iterable[Any]) -> None:
        """Stores columns of strings in a file that does not count towards the limits and is never evicted."""
        checked = [shard_files.checked_column(column) for column in columns]
        self._write(self.directory / name, partial(shard_files.write, identity=identity, columns=checked))

    # Use

    def lease(self, shard: Shard, expected_bytes: int = 0) -> None:
        """Protects the shard from eviction until it is released as often, and makes room for its text."""
        with self._folder.locked():
            self._folder.lease(shard.number, 1)
        shard_files.touch(self.directory, shard.number)
        self._evict(shard, 0 if self._whole(shard).is_file() else expected_bytes)
        self._merge(shard)  # the process that stored the last row group may have been killed before it merged

    def release(self, shard: Shard) -> None:
        """Ends one lease."""
        with self._folder.locked():
            self._folder.lease(shard.number, -1)

    def stock(self) -> list[Stored]:
        """Returns what is stored of each shard."""
        return sorted(shard_files.stock(self.directory))

    @property
    def nbytes(self) -> int:
        """Bytes of all text and tokens on disk."""
        return sum(stored.nbytes for stored in self.stock())

    # Listings

    def record(self, key: str, listing: Any) -> None:
        """Stores a listing, plain JSON values, so that a run can start without a network."""
        with self._folder.locked():
            listings = self._listings()
            if listings.get(key) != listing:
                listings[key] = listing
                data = {"format": FORMAT, "shards": {}, "checksum": _checksum(listings), "listings": listings}
                self._write(self.metadata_path, lambda file: file.write(json.dumps(data).encode()))

    def recall(self, key: str, parse: Callable[[Any], T]) -> T | None:
        """Returns the listing stored under the key, parsed; None if there is none or `parse` raises an error."""
        with self._folder.locked():
            listings = self._listings()
        if key in listings:
            try:
                return parse(listings[key])
            except (LookupError, TypeError, ValueError, AttributeError):
                self.notify(f"{self.metadata_path} has an unreadable entry for {key}: asking the hub again")
        return None

    def _listings(self) -> dict[str, Any]:
        try:
            data = json.loads(self.metadata_path.read_text(encoding="utf-8"))
            listings = {**data["listings"]}
            if data["format"] == FORMAT and data.get("checksum") in (
                None,
                _checksum(listings),
            ):  # None: an earlier version
                return listings
        except FileNotFoundError:
            return {}
        except (OSError, LookupError, TypeError, ValueError, RecursionError):
            pass
        self.notify(f"{self.metadata_path} is damaged and is written again; the shards are kept")
        with contextlib.suppress(OSError):
            self.metadata_path.unlink()
        return {}

    # Files

    def _whole(self, shard: Shard) -> Path:
        return shard_path(self.directory, shard.number, TEXT)

    def _part(self, shard: Shard, row_group: int) -> list[Any] | None:
        path = row_group_path(self.directory, shard, row_group)
        return self._read(path, partial(shard_files.read, identity=shard.identity(unit=row_group)), shard)

    def _evict(self, shard: Shard, incoming: int, disk_is_full: bool = False) -> None:
        """Removes files of other shards until `incoming` more bytes fit; on a full disk, at least that many bytes."""
        with self._folder.locked():
            limit = min(self.max_bytes, self.nbytes) if disk_is_full else self.max_bytes
            leased = self._folder.leased() | {shard.number}
            for stored in evictions(self.stock(), leased, self.max_shards, limit - incoming):
                shard_files.remove(self.directory, stored.number, stored.kind)

    def _read(self, path: Path, read: Callable[[Path], T], shard: Shard | None = None) -> T | None:
        """Returns the contents of a file; None if there are none. A damaged file is removed."""
        if not path.is_file():
            return None
        try:
            status = path.stat()
            found = read(path)
        except Exception as error:  # of many types, if a file is damaged
            if isinstance(error, OSError) and error.errno:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    self.notify(f"{path} cannot be read ({error.strerror}): continuing without it")
                return None
            with self._folder.locked(), contextlib.suppress(OSError):
                if os.path.samestat(path.stat(), status):  # else another process has replaced the file already
                    path.unlink()
                    reason = (str(error) or type(error).__name__).splitlines()[0][:120]
                    self.notify(f"{path} is damaged ({reason}): removed, to be stored again")
            return None
        if shard is not None:
            shard_files.touch(self.directory, shard.number)
        return found

    def _write(
        self, path: Path, write: Callable[[BinaryIO], object], shard: Shard | None = None, expected_bytes: int = 0
    ) -> bool:
        """Whether the file was stored. If the disk is full, other shards are evicted and the write is repeated once.

        A failure is reported once, until a write succeeds again.
        """
        try:
            try:
                self._folder.write(path, write)
            except OSError as error:
                if shard is None or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._evict(shard, expected_bytes, disk_is_full=True)
                self._folder.write(path, write)
        except OSError as error:
            if not self._write_failed:
                self.notify(f"{path} cannot be stored ({error.strerror or error}): continuing without it")
            self._write_failed = True
            return False
        self._write_failed = False
        if shard is not None:
            shard_files.touch(self.directory, shard.number)
        return True

    def _merge(self, shard: Shard) -> None:
        """Writes the shard's file if all its row groups are here."""

        def columns() -> Iterator[Any]:
            for row_group in range(shard.row_groups):
                if (part := self._part(shard, row_group)) is None:
                    raise LookupError
                yield part[0]

        def write(file: BinaryIO) -> None:
            shard_files.write(file, shard.identity(unit=None), columns())

        whole, parts = self._whole(shard), shard_path(self.directory, shard.number, PARTS)
        if not whole.is_file() and shard_files.files_in(parts).keys() >= set(range(shard.row_groups)):
            size = sum(stored.nbytes for stored in self.stock() if stored[:2] == (shard.number, PARTS))
            with contextlib.suppress(LookupError):  # a part was damaged: the shard is incomplete after all
                self._write(whole, write, shard, size)
        if whole.is_file() and parts.is_dir():
            shard_files.remove(self.directory, shard.number, PARTS)


def _checksum(listings: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(listings, sort_keys=True).encode())


def evictions(stock: Sequence[Stored], leased: Set[int], max_shards: int, max_bytes: int) -> list[Stored]:
    """Returns what to remove of the shards that are not leased, least recently used first.

    Shards above max_shards are removed completely. Then, until max_bytes are left, the tokens of the others are removed
    (they can be made again without a network), and at last their text. Leased shards count, even before any of their
    text has arrived.

    >>> stock = [Stored(1, "parquet", 1, 4, 20), Stored(1, "byte", 3, 6, 20), Stored(2, "parquet", 1, 4, 10)]
    >>> [f"{stored.number} {stored.kind}" for stored in evictions(stock, {3}, max_shards=2, max_bytes=5)]
    ['2 parquet', '1 byte']
    """
    last_use = {number: max(stored.last_use for stored in stock if stored.number == number) for number, *_ in stock}
    oldest = sorted(last_use.keys() - leased, key=last_use.__getitem__)
    surplus = oldest[: max(0, len(last_use.keys() | leased) - max_shards)]

    def order(stored: Stored) -> tuple[bool, bool, int]:
        return stored.number not in surplus, stored.kind in (TEXT, PARTS), oldest.index(stored.number)

    excess, removed = sum(stored.nbytes for stored in stock) - max_bytes, list[Stored]()
    for stored in sorted((stored for stored in stock if stored.number in oldest), key=order):
        if stored.number in surplus or excess > 0:
            removed.append(stored)
            excess -= stored.nbytes
    return removed
