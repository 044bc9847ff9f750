"""Digests of files between commands: read again only after a change, whole after any damage and with many writers."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from transformer.interop import digests
from transformer.interop.digests import Digests, sha256_of


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read."""
    names: list[str] = []

    def counted(path: Path) -> str:
        names.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(digests, "sha256_of", counted)
    return names


def settled(path: Path, content: bytes, seconds: float = 60) -> Path:
    """Writes a file that changed some time ago."""
    path.write_bytes(content)
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def digest(index: Path, file: Path) -> str:
    """Returns the digest as a command finds it, which then ends."""
    own = Digests(index)
    found = own.sha256_of(file)
    own.save()
    assert found == sha256_of(file)
    return found


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, read: list[str]) -> None:
    file, index = settled(tmp_path / "a", b"one"), tmp_path / "cache" / "digests.json"
    first = digest(index, file)
    assert digest(index, file) == first
    assert digest(index, tmp_path / "cache" / ".." / "a") == first
    assert read == ["a"]
    before = file.stat()
    settled(file, b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # the same size and time
    assert digest(index, file) != first
    file.unlink()
    settled(file, b"six")
    digest(index, file)
    assert read == ["a"] * 3


def test_a_file_that_has_just_changed_is_read_again(tmp_path: Path, read: list[str]) -> None:
    file, index = settled(tmp_path / "a", b"one", seconds=0), tmp_path / "digests.json"
    digest(index, file)
    digest(index, file)
    assert read == ["a", "a"]
    assert not index.exists()


def test_a_file_that_changes_while_it_is_read_has_no_entry(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, index = settled(tmp_path / "a", b"one"), Digests(tmp_path / "digests.json")
    monkeypatch.setattr(digests, "sha256_of", lambda path: (sha256_of(path), settled(path, b"other"))[0])
    index.sha256_of(file)
    index.save()
    assert not index.path.exists()


def test_a_damaged_index_is_as_none(tmp_path: Path, read: list[str]) -> None:
    file, index = settled(tmp_path / "a", b"one"), tmp_path / "digests.json"
    digest(index, file)
    good = index.read_bytes()
    spoilt = [b"", b"\xff", b"{}", good[:-1], good + b" ", good.replace(b"1", b"2"), b"[" * 100_000, good[:64] + b"\n1"]
    for content in spoilt:
        index.write_bytes(content)
        digest(index, file)
        assert index.read_bytes() == good, content[:20]
    assert len(read) == 1 + len(spoilt)


def test_many_writers_lose_nothing(tmp_path: Path, read: list[str]) -> None:
    files = [settled(tmp_path / f"{number}", bytes([number])) for number in range(8)]
    index = tmp_path / "digests.json"
    threads = [threading.Thread(target=digest, args=(index, file)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for file in files:
        digest(index, file)
    assert len(read) == 8


def test_the_newest_entries_are_kept(tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "MOST_FILES", 2)
    files = [settled(tmp_path / name, b"one") for name in "abc"]
    for file in (*files, *files[:0:-1]):
        digest(tmp_path / "digests.json", file)
    assert read == ["a", "b", "c"]


def test_an_index_that_cannot_be_written_is_no_error(tmp_path: Path, read: list[str]) -> None:
    (tmp_path / "cache").write_text("a file")
    digest(tmp_path / "cache" / "digests.json", settled(tmp_path / "a", b"one"))
    assert read == ["a"]
