"""A folder that several processes use at once: locks, atomic writes, and leases that end with their process.

    cache.lock          held while shards are removed and listings are changed
    .locks/NAME         further locks, which are tried without waiting
    .processes/ID/      one for each SharedFolder object: `lock`, held while it exists; its leases; its temporary files

A file is written in the process's own folder, flushed, and renamed to its final path, so that a path has all of a file
or none. If the lock of another process's folder can be taken, that process is dead and its folder is removed: a killed
process leaves neither leases nor temporary files.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

LEASE = "shard_"
"""Prefix of the files that are leases; the number of the shard follows."""


class SharedFolder:
    """One user of the folder `root`. Raises ValueError if the folder cannot be written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._leases: Counter[int] = Counter()
        self._own = root / ".processes" / f"{os.getpid()}-{secrets.token_hex(4)}"
        self._alive = FileLock(self._own / "lock", timeout=0, thread_local=False)
        try:
            (root / ".locks").mkdir(parents=True, exist_ok=True)
            with self.locked():
                self._own.mkdir(parents=True)
                self._alive.acquire()
                self.leased()
        except OSError as error:
            reason = error.strerror or error
            raise ValueError(f"{root} cannot be used as a cache ({reason}): give a writable folder") from error

    def close(self) -> None:
        """Ends all leases and removes the temporary files. A second call does nothing."""
        if self._alive.is_locked:
            with contextlib.suppress(OSError), self.locked():
                self._alive.release()  # first, because Windows removes no file that is locked
                shutil.rmtree(self._own, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds cache.lock against all threads and processes. Not re-entrant."""
        with FileLock(self.root / "cache.lock").acquire(poll_interval=0.01):
            yield

    @contextlib.contextmanager
    def try_lock(self, name: str) -> Iterator[bool]:
        """Holds .locks/NAME; yields False if another thread or process holds it."""
        lock = FileLock(self.root / ".locks" / name, timeout=0)  # a new object: threads would share an old one's lock
        held = True
        try:
            lock.acquire()
        except Timeout:
            held = False
        except OSError:  # a full disk has no space for a lock. Without it, work may be done twice but never wrongly
            pass
        try:
            yield held
        finally:
            lock.release()  # does nothing if it was not acquired

    def lease(self, number: int, step: int) -> None:
        """Adds `step`, 1 or -1, to the leases that this object holds on a shard. Called inside `locked`."""
        self._leases[number] += step
        path = self._own / f"{LEASE}{number}"
        with contextlib.suppress(OSError):  # on a full disk the lease is visible to this object only
            if self._leases[number] > 0:
                path.touch()
            else:
                path.unlink()

    def leased(self) -> set[int]:
        """Returns the shards leased by any running process, and removes the folders of dead ones. Inside `locked`."""
        found = {number for number, count in self._leases.items() if count > 0}
        for folder in (self.root / ".processes").glob("*/"):
            if folder == self._own:
                continue
            try:
                with FileLock(folder / "lock", timeout=0):
                    pass
            except OSError:  # its process is running: a Timeout is an OSError
                found |= {int(path.name.removeprefix(LEASE)) for path in folder.glob(f"{LEASE}*")}
            else:
                shutil.rmtree(folder, ignore_errors=True)
        return found

    def write(self, path: Path, write: Callable[[BinaryIO], object]) -> None:
        """Writes a file that appears at `path` complete. Raises OSError."""
        temporary = self._own / f"{secrets.token_hex(8)}.tmp"
        try:
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            try:
                temporary.replace(path)
            except FileNotFoundError:  # no folder yet, or another process has just removed it
                path.parent.mkdir(exist_ok=True)
                temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
