"""Files that a user keeps are replaced as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from full_disk import files_of_at_most
from transformer.reporting.figures import save_figure
from transformer.reporting.metrics_log import MetricsLog, to_line
from transformer.training import checkpoint
from transformer.training.events import RunStarted
from transformer.training.files import new_folder, replacing, write_text

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files, and no such devices")
WRITERS: dict[str, Callable[[Path], object]] = {
    "page.html": lambda path: write_text(path, "x" * 10_000),
    "compare.png": lambda path: save_figure(Figure(), path),
    "compare.svg": lambda path: save_figure(Figure(), path),
    "model_epoch_1_byte.pt": lambda path: checkpoint.save(path, {"model": torch.zeros(4_000)}),
    "metrics.jsonl": lambda path: MetricsLog(path.parent)(RunStarted("run", 5, 9, 1, 1, 1, "cpu")),  # a resumed run
}


@POSIX
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, name: str) -> None:
    """A truncated page and an empty picture once stayed under the final name."""
    path = tmp_path / name
    old = to_line(RunStarted("r" * 2_000, 0, 9, 1, 1, 1, "cpu")).encode()
    path.write_bytes(old)
    with files_of_at_most(1_000), pytest.raises(OSError, match="too large") as caught:
        WRITERS[name](path)
    assert caught.value.filename == str(path)
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (old, [path])
    WRITERS[name](path)
    assert path.read_bytes() != old


def test_an_error_in_the_block_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_text(path, "old")
    with contextlib.suppress(KeyboardInterrupt), replacing(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert (path.read_text(encoding="utf-8"), list(tmp_path.iterdir())) == ("old", [path])


@POSIX
def test_links_are_followed_and_devices_are_written_not_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "disk" / "page.html", tmp_path / "page.html"
    link.symlink_to(target)  # which does not exist yet
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8") == "new"
    write_text(Path("/dev/null"), "nothing")
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() == 0, reason="nothing is write-protected for this user")
def test_a_write_protected_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_text(path, "old")
    path.chmod(0o444)
    with pytest.raises(PermissionError):
        write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"


def test_a_folder_appears_when_all_of_it_is_written(tmp_path: Path) -> None:
    target = tmp_path / "exports" / "model"
    with new_folder(target) as inside:
        write_text(inside / "a.txt", "a")
        assert not target.exists()
    assert (target / "a.txt").read_text(encoding="utf-8") == "a"
    assert list(target.parent.iterdir()) == [target]


def test_an_error_leaves_no_folder_and_the_empty_one_that_was_there(tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), new_folder(tmp_path / "model") as inside:
        write_text(inside / "a.txt", "a")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "model").mkdir()
    with contextlib.suppress(KeyboardInterrupt), new_folder(tmp_path / "model"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


@POSIX
def test_the_folder_of_a_killed_process_is_removed_by_the_next_one(tmp_path: Path) -> None:
    left = tmp_path / f".model.{2**22 + 1}.tmp"  # no process has this number: it is above Linux's limit
    left.mkdir()
    (left / "a.txt").touch()
    with new_folder(tmp_path / "model"):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


@pytest.mark.parametrize(("name", "reason"), [("full", "is not empty"), ("file", "is a file")])
def test_nothing_that_exists_is_written_over(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").touch()
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match=f"{name} exists and {reason}: give the name of a new folder"),
        new_folder(tmp_path / name),
    ):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.txt", "file", "full"]
