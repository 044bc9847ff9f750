"""The sha256 of large files, kept between commands: a file is read again only if it may have changed.

An entry holds for a path as long as size, times and inode of the file are the same. A file that changed within the last
seconds gets none, as its clock may be too coarse to show the next change. The entries are in one JSON file, below a
digest of themselves: a damaged file is as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from transformer.training.files import write_text

SETTLED = 3.0
"""Seconds after a change from which on an entry is made; FAT's clock ticks every two seconds."""
MOST_FILES = 1000
"""Entries that are kept, the newest ones."""


class Digests:
    """Digests in the file `path`, which save() writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = _read(path)
        self._new: dict[str, Any] = {}

    def sha256_of(self, file: Path) -> str:
        """Returns the sha256 of a file, from an entry if it has one."""
        path, before = os.path.realpath(file), _state(file)
        entry = self._known.get(path)
        if entry and entry[:-1] == before:
            return str(entry[-1])
        digest = sha256_of(file)
        if _state(file) == before and time.time() - file.stat().st_mtime > SETTLED:
            self._new[path] = [*before, digest]
        return digest

    def save(self) -> None:
        """Adds the new entries to the file, if it can be written; other processes may do so at the same time."""
        if not self._new:
            return
        with contextlib.suppress(OSError, NotImplementedError):  # no room, no permission, or a system without locks
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=10):
                entries = _read(self.path) | self._new
                text = json.dumps(dict([*entries.items()][-MOST_FILES:]))
                write_text(self.path, f"{_digest(text)}\n{text}")


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(file: Path) -> list[int]:
    """Returns what changes with the contents of a file."""
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _read(path: Path) -> dict[str, Any]:
    try:
        digest, _, text = path.read_text(encoding="utf-8").partition("\n")
        entries = json.loads(text) if digest == _digest(text) else {}
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
