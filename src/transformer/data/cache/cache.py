"""ShardCache: units are read, stored and merged here, on top of files.py, folder.py and catalogue.py."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from transformer.config import DataConfig

from . import files, token_files
from .files import PARTS, TEXT, Shard, unit_path
from .index import UNFINISHED, Catalogue, InUseError, ShardEntry, shard_of
from .locked_directory import SharedFolder
from .token_files import RowGroupTokens

UNIT_LOCKS, MERGE_LOCKS = 256, 32
TOUCH_SECONDS = 10.0

T = TypeVar("T")


class _UnitMissingError(Exception):
    """A part went while the parts were merged: the shard is not whole after all."""


class ShardCache:
    """The cache in `directory`, for any number of threads. Raises ValueError where the directory cannot be written.

    `tell` gets a line about whatever was damaged or cannot be stored; it must not call the cache. Any method that takes
    a shard raises InUseError where somebody has pinned another text under its number.
    """

    def __init__(
        self,
        directory: Path,
        max_shards: int = DataConfig.cache_shards,
        max_bytes: int = int(DataConfig.cache_gb * 1e9),
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.directory, self.max_shards, self.max_bytes, self.tell = directory, max_shards, max_bytes, tell
        self._known: set[Shard] = set()  # compared with the metadata
        self._sound: dict[Shard, tuple[int, int]] = {}  # size and time of the shard files found sound
        self._touched: dict[Shard, float] = {}
        locks = [*map(_unit_lock, range(UNIT_LOCKS)), *map(_merge_lock, range(MERGE_LOCKS))]
        self._folder = SharedFolder(directory, locks)
        self._catalogue = Catalogue(self._folder, tell)

    def __enter__(self) -> ShardCache:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives up all pins. What is stored stays."""
        self._folder.close()

    def lock(self, shard: Shard, unit: int, blocking: bool = True) -> contextlib.AbstractContextManager[bool]:
        """Holds one unit against all threads and processes; yields False where it is held and blocking is False.

        Units share a fixed set of locks, so a unit may seem held when another is, and no thread may hold two.
        """
        return self._folder.held(_unit_lock(shard.number * 97 + unit), blocking)  # neighbours never share a lock

    def has_text(self, shard: Shard, unit: int) -> bool:
        """Whether a file with the unit's text is here. That it can be read, only `text` knows."""
        self._meet(shard)
        return self._whole(shard).is_file() or unit_path(self.directory, shard, unit).is_file()

    def text(self, shard: Shard, unit: int) -> Any | None:
        """The unit's documents, a pyarrow ChunkedArray of large_string; None where they are not here."""
        self._meet(shard)
        whole, part = self._whole(shard), unit_path(self.directory, shard, unit)
        for path in (whole, part, whole):  # between two looks it may be merged
            column = self._read(shard, path, partial(files.read_unit, shard=shard, unit=unit))
            if column is not None:
                return column
        return None

    def put_text(self, shard: Shard, unit: int, column: Any) -> None:
        """Stores a unit's documents, a pyarrow array of strings, unless they are here; the last unit merges all."""
        column = files.checked_column(column)
        path = unit_path(self.directory, shard, unit)
        if not self.has_text(shard, unit):
            write = partial(files.write_part, shard=shard, unit=unit, column=column)
            if self._put(shard, path, write, column.nbytes):
                self._merge(shard)

    def tokens(self, shard: Shard, unit: int, encoding: str) -> RowGroupTokens | None:
        """The unit's tokens, memory-mapped; None where they are not here. `encoding` names one vocabulary for ever."""
        self._meet(shard)
        path = unit_path(self.directory, shard, unit, encoding)
        return self._read(shard, path, partial(token_files.read, label=shard.label(unit, encoding)))

    def put_tokens(self, shard: Shard, unit: int, encoding: str, tokens: RowGroupTokens) -> None:
        """Stores a unit's tokens; evicts for them first, as make_room does."""
        path = unit_path(self.directory, shard, unit, encoding)
        with self._catalogue.opened() as data:
            self._catalogue.claim(data, shard)
            self._catalogue.evict(data, shard, self.max_shards, self.max_bytes, tokens.nbytes)
        write = partial(token_files.write, unit=tokens, label=shard.label(unit, encoding))
        self._put(shard, path, write, tokens.nbytes)

    def pin(self, shard: Shard) -> None:
        """Keeps the shard from eviction by any process, until it is unpinned as often or this process ends."""
        with self._catalogue.opened() as data:
            self._catalogue.pin(data, shard, 1)
        self._merge(shard)  # where somebody was killed before he could

    def unpin(self, shard: Shard) -> None:
        """Takes back one pin. Raises ValueError where there is none."""
        with self._catalogue.opened() as data:
            self._catalogue.pin(data, shard, -1)

    def make_room(self, shard: Shard, expected_bytes: int) -> None:
        """Evicts for a shard that is to come, and records it. Pinned, its room stays reserved until it is here.

        First go the shards that are too many, then tokens, then shards until the bytes fit; the one used longest ago
        always first. What is pinned stays, even where too much is left then.
        """
        with self._catalogue.opened() as data:
            self._catalogue.claim(data, shard)["expected_bytes"] = expected_bytes
            self._catalogue.evict(data, shard, self.max_shards, self.max_bytes, 0)

    def layout(self, number: int) -> Shard | None:
        """The shard recorded under a number, so that a run can start without asking for it."""
        with self._catalogue.opened() as data:
            entry = data["shards"].get(str(number))
        return shard_of(number, entry) if entry else None

    def shards(self) -> list[ShardEntry]:
        """What is here, by number."""
        with self._catalogue.opened() as data:
            return self._catalogue.shown(data)

    @property
    def nbytes(self) -> int:
        """Bytes of all text and tokens on disk."""
        return sum(sum(kinds.values()) for kinds in files.stock(self.directory).values())

    def record(self, key: str, listing: Any) -> None:
        """Keeps a listing, plain JSON values, for starting without a network."""
        with self._catalogue.opened() as data:
            data["listings"][key] = listing

    def recall(self, key: str) -> Any | None:
        """The listing kept under the key; None where there is none."""
        with self._catalogue.opened() as data:
            return data["listings"].get(key)

    def keep(self, path: Path, write: Callable[[BinaryIO], object]) -> None:
        """Stores another file in the directory, whole or not at all; it counts for nothing and is never evicted."""
        try:
            self._folder.store(path, write)
        except OSError as error:
            self._catalogue.cannot_store(path, error)

    # Reading and storing files

    def _whole(self, shard: Shard) -> Path:
        return files.shard_path(self.directory, shard.number, TEXT)

    def _meet(self, shard: Shard) -> None:
        if shard not in self._known:
            with self._catalogue.opened() as data:
                self._catalogue.claim(data, shard)
            self._known.add(shard)

    def _touch(self, shard: Shard) -> None:
        now = time.monotonic()
        if now - self._touched.get(shard, -TOUCH_SECONDS) >= TOUCH_SECONDS:
            self._touched[shard] = now
            with self._catalogue.opened() as data:
                self._catalogue.touch(data, shard)

    def _read(self, shard: Shard, path: Path, read: Callable[[Path], T]) -> T | None:
        """What is read, or None; a file that cannot be trusted is told and removed."""
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                return None
            if path == self._whole(shard) and not self._is_sound(shard, path, status):
                return None
            found = read(path)
        except InUseError:
            raise
        except ValueError as error:
            self._condemn(shard, path, status, str(error))
            return None
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                self.tell(f"{path} cannot be read ({error.strerror or error}): going on without it")
            return None
        self._touch(shard)
        return found

    def _is_sound(self, shard: Shard, path: Path, status: os.stat_result) -> bool:
        """Whether it is the shard file that was finished; asked again when its size or time is another."""
        now = (status.st_size, status.st_mtime_ns)
        if self._sound.get(shard) == now:
            return True
        with self._catalogue.opened() as data:
            entry = self._catalogue.claim(data, shard)
            wanted, recorded = entry["sha256"], (entry["bytes"], entry["mtime_ns"])
        if wanted is None or recorded != now:
            found = _sha256(path)
            if wanted not in (None, found):
                self._condemn(shard, path, status, "its sha256 is not the recorded one")
                return False
            with self._catalogue.opened() as data:
                entry = self._catalogue.claim(data, shard)
                if _same(path.stat(), status):
                    entry.update(complete=True, bytes=now[0], mtime_ns=now[1], sha256=found)
        self._sound[shard] = now
        return True

    def _condemn(self, shard: Shard, path: Path, status: os.stat_result, reason: str) -> None:
        with self._catalogue.opened() as data:
            entry = self._catalogue.claim(data, shard)
            with contextlib.suppress(OSError):
                if not _same(path.stat(), status):
                    return  # somebody was faster: it is a new file
                path.unlink()
            if path == self._whole(shard):
                entry.update(UNFINISHED)
                self._sound.pop(shard, None)
        self.tell(f"{path} is damaged ({reason}): removed, to be made again")

    def _put(
        self,
        shard: Shard,
        path: Path,
        write: Callable[[BinaryIO], object],
        expected_bytes: int,
        place: Callable[[Path], None] | None = None,
    ) -> bool:
        """Whether the file was stored; on a full disk something else is evicted for it, once."""
        for trial in (1, 2):
            try:
                self._folder.store(path, write, place)
            except OSError as error:
                if trial == 1 and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    with self._catalogue.opened() as data:
                        self._catalogue.evict(data, shard, self.max_shards, self.max_bytes, expected_bytes, full=True)
                elif trial == 2 or error.errno != errno.ENOENT:  # ENOENT: its folder was removed just now
                    self._catalogue.cannot_store(path, error)
                    return False
            else:
                self._catalogue.cannot_store(path, None)
                return True
        return False

    # Merging

    def _merge(self, shard: Shard) -> None:
        """Makes the shard file if all parts are here and nobody else is at it."""
        whole, parts = self._whole(shard), files.shard_path(self.directory, shard.number, PARTS)
        if not whole.is_file() and files.units_in(parts).keys() >= set(range(shard.row_groups)):
            with self._folder.held(_merge_lock(shard.number), blocking=False) as mine:
                if mine and not whole.is_file():
                    self._merge_parts(shard, whole)
        if whole.is_file() and parts.is_dir():
            files.remove(self.directory, shard.number, [PARTS])

    def _merge_parts(self, shard: Shard, whole: Path) -> None:
        def columns() -> Iterator[Any]:
            for unit in range(shard.row_groups):
                path = unit_path(self.directory, shard, unit)
                column = self._read(shard, path, partial(files.read_unit, shard=shard, unit=unit))
                if column is None:
                    raise _UnitMissingError
                yield column

        def write(file: BinaryIO) -> None:
            files.write_shard(file, shard, columns())

        def place(temporary: Path) -> None:
            status, digest = temporary.stat(), _sha256(temporary)
            with self._catalogue.opened() as data:
                entry = self._catalogue.claim(data, shard)
                temporary.replace(whole)
                entry.update(complete=True, bytes=status.st_size, mtime_ns=status.st_mtime_ns, sha256=digest)

        with contextlib.suppress(_UnitMissingError):
            self._put(shard, whole, write, files.stock(self.directory).get(shard.number, {}).get(PARTS, 0), place)


def _unit_lock(number: int) -> str:
    return f"unit_{number % UNIT_LOCKS:03d}"


def _merge_lock(number: int) -> str:
    return f"merge_{number % MERGE_LOCKS:02d}"


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_ino, one.st_size, one.st_mtime_ns) == (other.st_ino, other.st_size, other.st_mtime_ns)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
