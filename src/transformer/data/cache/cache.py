"""ShardCache: row groups are stored, read and merged, and the least recently used shards are removed.

Every file is verified when it is read. A damaged file, or one that holds another text, is reported in one line, removed
and treated as absent, so its text is fetched again. The metadata can be lost too: without it only the order of use and
the listings are unknown. If the disk is full, old shards are removed; if that does not help, nothing more is stored and
the run continues.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from transformer.config import DataConfig

from . import shard_files, token_files
from .shard_files import PARTS, TEXT, Shard, row_group_path, shard_path
from .shared_folder import SharedFolder
from .token_files import RowGroupTokens

FORMAT = 1
LOCKS = 64
"""Locks for row groups: few, so that their files stay few; many, so that two row groups rarely share one."""
TOUCH_SECONDS = 10.0
"""How often reading a shard is recorded as a use."""

T = TypeVar("T")


@dataclass(frozen=True)
class ShardEntry:
    """The contents of the cache for one shard."""

    number: int
    source: str
    row_groups: int
    row_groups_present: int
    """Row groups whose text is in the cache."""
    text_bytes: int
    token_bytes: dict[str, int]
    """Bytes of token files by encoding."""
    last_use: int
    """In the units of time.time_ns()."""


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
        self._touched: dict[Shard, float] = {}
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
        whole, part = self._whole(shard), row_group_path(self.directory, shard, row_group)
        for path in (whole, part, whole):  # the part may be merged between the first two reads
            column = self._read(shard, path, partial(shard_files.read, shard=shard, row_group=row_group))
            if column is not None:
                return column
        return None

    def put_text(self, shard: Shard, row_group: int, column: Any) -> None:
        """Stores the documents, a pyarrow array of strings. The last row group of a shard to arrive merges all."""
        column = shard_files.checked_column(column)
        path = row_group_path(self.directory, shard, row_group)
        if not self.has_text(shard, row_group):
            self._touch(shard)
            write = partial(shard_files.write, shard=shard, row_group=row_group, columns=[column])
            if self._write(path, write, shard, column.nbytes):
                self._merge(shard)

    def tokens(self, shard: Shard, row_group: int, encoding: str) -> RowGroupTokens | None:
        """Returns the token ids, or None. An `encoding` name always means the same vocabulary."""
        path = row_group_path(self.directory, shard, row_group, encoding)
        return self._read(shard, path, partial(token_files.read, label=shard.label(row_group, encoding)))

    def put_tokens(self, shard: Shard, row_group: int, encoding: str, tokens: RowGroupTokens) -> None:
        """Stores the token ids, after removing the least recently used files if the cache is too large."""
        path = row_group_path(self.directory, shard, row_group, encoding)
        self._touch(shard)
        with self._metadata() as data:
            self._evict(data, shard, tokens.nbytes)
        write = partial(token_files.write, tokens=tokens, label=shard.label(row_group, encoding))
        self._write(path, write, shard, tokens.nbytes)

    def keep(self, path: Path, write: Callable[[BinaryIO], object]) -> None:
        """Stores another file in the directory. It does not count towards the limits and is never evicted."""
        self._write(path, write)

    # Use

    def lease(self, shard: Shard, expected_bytes: int = 0) -> None:
        """Protects the shard from eviction until it is released as often, and makes room for its text."""
        with self._metadata() as data:
            self._use(data, shard)
            self._folder.lease(_lease(shard.number), 1)
            missing = 0 if self._whole(shard).is_file() else expected_bytes
            self._evict(data, shard, missing)
        self._merge(shard)  # the process that stored the last row group may have been killed before it merged

    def release(self, shard: Shard) -> None:
        """Ends one lease."""
        with self._folder.locked():
            self._folder.lease(_lease(shard.number), -1)

    def shards(self) -> list[ShardEntry]:
        """Returns the contents of the cache, by shard number."""
        stock, found = shard_files.stock(self.directory), []
        with self._metadata() as data:
            for number, entry in sorted((int(key), entry) for key, entry in data["shards"].items()):
                tokens = stock.get(number, {})
                whole, parts = tokens.pop(TEXT, None), tokens.pop(PARTS, 0)
                parts_present = len(shard_files.files_in(shard_path(self.directory, number, PARTS)))
                present = parts_present if whole is None else entry["units"]
                known = (number, entry["source"], entry["units"], present)
                found.append(ShardEntry(*known, (whole or 0) + parts, tokens, entry["last_use"]))
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of all text and tokens on disk."""
        return _total(shard_files.stock(self.directory))

    def record(self, key: str, listing: Any) -> None:
        """Stores a listing, plain JSON values, so that a run can start without a network."""
        with self._metadata() as data:
            data["listings"][key] = listing

    def recall(self, key: str) -> Any | None:
        """Returns the listing stored under the key, or None."""
        with self._metadata() as data:
            return data["listings"].get(key)

    # Metadata: changed under cache.lock only

    @contextlib.contextmanager
    def _metadata(self) -> Iterator[dict[str, Any]]:
        """Yields the metadata, and stores it if it was changed."""
        with self._folder.locked():
            text, data = self._load_metadata()
            yield data
            changed = json.dumps(data)
            if changed != text:
                self._write(self.metadata_path, lambda file: file.write(changed.encode()))

    def _load_metadata(self) -> tuple[str, dict[str, Any]]:
        try:
            text = self.metadata_path.read_text(encoding="utf-8")
            return text, _parse(text)
        except (OSError, ValueError, RecursionError) as error:
            if not isinstance(error, FileNotFoundError) or shard_files.stock(self.directory):
                self.notify(f"{self.metadata_path} is missing or damaged: started anew, the shards are kept")
            return "", {"format": FORMAT, "shards": {}, "listings": {}}

    def _use(self, data: dict[str, Any], shard: Shard) -> None:
        """Records a use. Files of another text under the shard's number are removed."""
        self._touched[shard] = time.monotonic()
        entry = data["shards"].get(str(shard.number), {})
        if entry and Shard.from_identity(shard.number, entry) != shard:
            kinds = shard_files.stock(self.directory).get(shard.number, {})
            shard_files.remove(self.directory, shard.number, kinds)
            if kinds:
                self.notify(f"{self._whole(shard)} belonged to another text: removed")
        latest = max([0, *(entry["last_use"] for entry in data["shards"].values())])  # the clock may be set back
        data["shards"][str(shard.number)] = {**shard.identity(), "last_use": max(time.time_ns(), latest + 1)}

    def _touch(self, shard: Shard) -> None:
        if time.monotonic() - self._touched.get(shard, -TOUCH_SECONDS) >= TOUCH_SECONDS:
            with self._metadata() as data:
                self._use(data, shard)

    def _evict(self, data: dict[str, Any], shard: Shard, incoming: int, disk_is_full: bool = False) -> None:
        """Removes files of other shards until `incoming` more bytes fit; on a full disk, at least that many bytes."""
        stock = shard_files.stock(self.directory)
        leased = {int(name) for name in map(_leased_number, self._folder.leased()) if name} | {shard.number}
        for number in leased:
            stock.setdefault(number, {})  # a leased shard counts before its first row group has arrived
        last_use = {int(key): entry["last_use"] for key, entry in data["shards"].items()}
        oldest = sorted(stock.keys() - leased, key=lambda number: last_use.get(number, 0))
        limit = min(self.max_bytes, _total(stock)) if disk_is_full else self.max_bytes
        for number, kind in evictions(stock, oldest, self.max_shards, limit - incoming):
            shard_files.remove(self.directory, number, [kind])
            del stock[number][kind]
        for number in last_use:
            if not stock.get(number) and number not in leased:
                del data["shards"][str(number)]

    # Files

    def _whole(self, shard: Shard) -> Path:
        return shard_path(self.directory, shard.number, TEXT)

    def _read(self, shard: Shard, path: Path, read: Callable[[Path], T]) -> T | None:
        if not path.is_file():
            return None
        try:
            status = path.stat()
            found = read(path)
        except ValueError as error:
            self._discard(path, status, str(error))
            return None
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                self.notify(f"{path} cannot be read ({error.strerror or error}): continuing without it")
            return None
        self._touch(shard)
        return found

    def _discard(self, path: Path, status: os.stat_result, reason: str) -> None:
        with self._folder.locked(), contextlib.suppress(OSError):
            now = path.stat()
            if (now.st_ino, now.st_size, now.st_mtime_ns) != (status.st_ino, status.st_size, status.st_mtime_ns):
                return  # another process has replaced the file already
            path.unlink()
            self.notify(f"{path} is damaged ({reason}): removed, to be stored again")

    def _write(
        self, path: Path, write: Callable[[BinaryIO], object], shard: Shard | None = None, expected_bytes: int = 0
    ) -> bool:
        """Whether the file was stored. If the disk is full, other shards are evicted and the write is repeated once.

        A failure is reported once, until a write succeeds again.
        """
        for attempt in (1, 2):
            try:
                self._folder.write(path, write)
            except OSError as error:
                if attempt == 1 and shard and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    with self._metadata() as data:
                        self._evict(data, shard, expected_bytes, disk_is_full=True)
                elif attempt == 2 or error.errno != errno.ENOENT:  # ENOENT: its folder was removed at this moment
                    if not self._write_failed:
                        self.notify(f"{path} cannot be stored ({error.strerror or error}): continuing without it")
                    self._write_failed = True
                    return False
            else:
                self._write_failed = False
                return True
        return False

    def _merge(self, shard: Shard) -> None:
        """Writes the shard's file if all its row groups are here and no other process is writing it."""
        whole, parts = self._whole(shard), shard_path(self.directory, shard.number, PARTS)
        if not whole.is_file() and shard_files.files_in(parts).keys() >= set(range(shard.row_groups)):
            with self._folder.try_lock(f"merge_{shard.number:05d}") as held:
                if held and not whole.is_file():
                    expected = shard_files.stock(self.directory).get(shard.number, {}).get(PARTS, 0)
                    with contextlib.suppress(LookupError):  # a part was damaged: the shard is incomplete after all
                        self._write(whole, partial(self._write_merged, shard=shard), shard, expected)
        if whole.is_file() and parts.is_dir():
            shard_files.remove(self.directory, shard.number, [PARTS])

    def _write_merged(self, file: BinaryIO, shard: Shard) -> None:
        def columns() -> Iterator[Any]:
            for row_group in range(shard.row_groups):
                path = row_group_path(self.directory, shard, row_group)
                column = self._read(shard, path, partial(shard_files.read, shard=shard, row_group=row_group))
                if column is None:
                    raise LookupError(path)
                yield column

        shard_files.write(file, shard, None, columns())


def evictions(
    stock: Mapping[int, Mapping[str, int]], oldest: Sequence[int], max_shards: int, max_bytes: int
) -> list[tuple[int, str]]:
    """Returns the files to remove, as shard numbers and kinds. `oldest`: removable shards, least recently used first.

    Shards above max_shards are removed completely. Then, until max_bytes are left, the tokens of the others are removed
    (they can be made again without a network), and at last their text.

    >>> stock = {1: {"parquet": 4, "byte": 6}, 2: {"parquet": 4, "byte": 6}, 3: {"parts": 4}}
    >>> evictions(stock, [2, 1], max_shards=3, max_bytes=11)
    [(2, 'byte'), (1, 'byte'), (2, 'parquet')]
    """
    surplus = max(0, len(stock) - max_shards)
    removed = [(number, kind) for number in oldest[:surplus] for kind in stock[number]]
    rest = [(number, kind) for number in oldest[surplus:] for kind in stock[number]]
    excess = _total(stock) - sum(stock[number][kind] for number, kind in removed) - max_bytes
    for number, kind in sorted(rest, key=lambda item: item[1] in (TEXT, PARTS)):  # stable: still oldest first
        if excess <= 0:
            break
        removed.append((number, kind))
        excess -= stock[number][kind]
    return removed


def _total(stock: Mapping[int, Mapping[str, int]]) -> int:
    return sum(sum(kinds.values()) for kinds in stock.values())


def _parse(text: str) -> dict[str, Any]:
    """Returns the metadata. Raises ValueError or RecursionError if the text is not metadata."""
    data: dict[str, Any] = json.loads(text)
    try:
        shards = [Shard.from_identity(int(key), entry) for key, entry in data["shards"].items()]
        counts = [shard.row_groups for shard in shards] + [entry["last_use"] for entry in data["shards"].values()]
        is_sound = data["format"] == FORMAT and isinstance(data["listings"], dict)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not cache metadata") from error
    if not is_sound or any(type(count) is not int for count in counts):
        raise ValueError("not cache metadata of this version")
    return data


def _lease(number: int) -> str:
    return f"shard_{number}"


def _leased_number(name: str) -> str:
    """Returns the shard number in the name of a lease; "" for the other files of a process's folder."""
    prefix, _, number = name.partition("_")
    return number if prefix == "shard" else ""
