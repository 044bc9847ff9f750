"""A folder that threads and processes share: locks, files that are whole or absent, and pins that die with their owner.

    cache.lock          held for what must be decided alone
    .locks/NAME         a fixed set, made at the start and never removed, so nobody locks a file that just went
    .processes/ID/      of each SharedFolder object: `lock`, held while it lives; its pins, empty files; temporary files

A file is written in the process folder, flushed, and renamed into its place. Whoever can take the lock of a process
folder has found a dead owner, and removes the folder: a killed process leaves no pin and no temporary file for long.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

POLL_SECONDS = 0.01


class SharedFolder:
    """One user of `root`; two objects in one process are two users.

    Raises ValueError where the folder cannot be written. `alone` and `held` lock out threads as well as processes, and
    no thread may take the same lock twice.
    """

    def __init__(self, root: Path, locks: Iterable[str]) -> None:
        self.root = root
        self._pins: Counter[str] = Counter()
        self._own = root / ".processes" / f"{os.getpid()}-{secrets.token_hex(4)}"
        self._alive = FileLock(self._own / "lock", timeout=0, thread_local=False)
        try:
            (root / ".locks").mkdir(parents=True, exist_ok=True)
            present = {path.name for path in (root / ".locks").iterdir()}
            for name in locks:
                if name not in present:
                    (root / ".locks" / name).touch()  # before the disk is full, when none could be made
            with self.alone():
                self._own.mkdir(parents=True)
                self._alive.acquire()
                self.pins()
        except OSError as error:
            reason = error.strerror or error
            raise ValueError(
                f"{root} cannot be used as a cache ({reason}): give a folder that can be written"
            ) from error

    def close(self) -> None:
        """Gives up all pins and the temporary files; a second call does nothing."""
        if self._alive.is_locked:
            with contextlib.suppress(OSError), self.alone():
                self._alive.release()  # first, because Windows removes no file that is held
                shutil.rmtree(self._own, ignore_errors=True)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Holds cache.lock, against everybody who shares the folder."""
        with FileLock(self.root / "cache.lock").acquire(poll_interval=POLL_SECONDS):
            yield

    @contextlib.contextmanager
    def held(self, name: str, blocking: bool = True) -> Iterator[bool]:
        """Holds one of the locks; yields False where somebody has it and blocking is False."""
        lock = FileLock(self.root / ".locks" / name)  # a fresh one: threads that shared it would share the lock
        try:
            lock.acquire(timeout=-1 if blocking else 0, poll_interval=POLL_SECONDS)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def pin(self, name: str, step: int) -> None:
        """Counts a pin of this object up or down, under `alone`. Raises ValueError where it would fall below zero."""
        if self._pins[name] + step < 0:
            raise ValueError(f"{name} is not pinned")
        self._pins[name] += step
        with contextlib.suppress(OSError):  # on a full disk the pin counts for this object alone
            if self._pins[name]:
                (self._own / name).touch()
            else:
                (self._own / name).unlink()

    def pins(self) -> set[str]:
        """The pins of all who live, under `alone`; removes the folders of the dead."""
        found = {name for name, count in self._pins.items() if count}
        for folder in (self.root / ".processes").glob("*/"):
            if folder == self._own:
                continue
            if _is_dead(folder):
                shutil.rmtree(folder, ignore_errors=True)
            else:
                found |= {path.name for path in folder.glob("*")}
        return found

    def store(
        self, path: Path, write: Callable[[BinaryIO], object], place: Callable[[Path], None] | None = None
    ) -> None:
        """Writes a file that appears at `path` whole; `place`, if given, renames it there. Raises OSError."""
        temporary = self._own / f"{secrets.token_hex(8)}.tmp"
        try:
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if place:
                place(temporary)
            else:
                path.parent.mkdir(exist_ok=True)
                temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def _is_dead(folder: Path) -> bool:
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except OSError:  # Timeout is one
        return False
    lock.release()
    return True
