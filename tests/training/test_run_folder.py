"""A run's folder: one run at a time, and an earlier run's files make way without the user's own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from transformer.distributed.processes import Dist
from transformer.training.run_folder import HOLDER, LOCK, RunFolderError, RunLock, set_aside

OWN = {
    "model_epoch_1_byte.pt", "training_state_byte.pt", "training_state_byte_previous.pt", "metrics.jsonl",
    "loss_curve.png", "loss_curve.svg", "wandb_id.txt",
    "film.frames", "inside.png", "inside.svg",
}  # fmt: skip
YOURS = {"notes.txt", "thesis.doc", "model.pt", "loss.png"}


def lock(folder: Path, said: list[str] | None = None) -> RunLock:
    taken = RunLock(Dist(), ([] if said is None else said).append)
    taken.take(folder)
    return taken


def test_a_second_run_in_a_folder_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    """The second run renamed the folder of the first, which went on writing into the newcomer's."""
    with lock(tmp_path / "run"):
        with pytest.raises(RunFolderError) as caught:
            lock(tmp_path / "run")
        started = r"started \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
        holder = f"process {os.getpid()} on {re.escape(socket.gethostname())}, {started}"
        assert re.fullmatch(f".*run is in use by {holder}: wait .* --checkpoint-dir", str(caught.value))
        (tmp_path / "link").symlink_to(tmp_path / "run")
        with pytest.raises(RunFolderError, match="is in use"):
            lock(tmp_path / "link")
        (tmp_path / "run" / HOLDER).write_text("{")
        with pytest.raises(RunFolderError, match="is in use by another process: "):
            lock(tmp_path / "run")
    with lock(tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / HOLDER).exists()


def test_the_lock_of_a_killed_process_does_not_block(tmp_path: Path) -> None:
    code = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(flush=True); input()"
    line = [sys.executable, "-c", code, str(tmp_path / LOCK)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(RunFolderError, match="is in use by another process"):
            lock(tmp_path)
        other.kill()
        other.wait()
        with lock(tmp_path):
            pass


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder in which nobody can make a file")
def test_where_a_folder_cannot_be_locked_one_line_says_so_and_the_run_continues() -> None:
    said: list[str] = []
    with lock(Path("/sys/kernel"), said) as taken:
        taken.take(Path("/sys/kernel"))
    assert [re.sub(r"\(.*\)", "()", line) for line in said] == [
        "/sys/kernel cannot be locked (); make sure that no other run uses it"
    ]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="file cannot be made: "):
        lock(tmp_path / "file")


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """A folder with the files of a run and those of a user."""
    folder = tmp_path / "disk"
    (folder / "tensorboard").mkdir(parents=True)
    for name in OWN | YOURS:
        (folder / name).write_text(name, encoding="utf-8")
    return folder


@pytest.mark.parametrize("kind", ["a folder", "a link", "the current folder"])
def test_only_the_runs_own_files_move(used: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """notes.txt and thesis.doc were moved away; a link was renamed, and the run went to the small disk."""
    folder = used
    if kind == "a link":
        (folder := tmp_path / "link").symlink_to(used)
    elif kind == "the current folder":
        monkeypatch.chdir(used)
        folder = Path()
    assert set_aside(folder) == folder / "earlier_1"
    assert {path.name for path in used.iterdir()} == YOURS | {"earlier_1"}
    assert {path.name for path in (used / "earlier_1").iterdir()} == OWN | {"tensorboard"}
    assert set_aside(folder) is None
    (used / "model_epoch_2_byte.pt").touch()
    assert set_aside(folder) == folder / "earlier_2"


def test_where_a_file_cannot_be_moved_none_is(used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, for a picture that is open in another program."""
    before = {path.name for path in used.iterdir()}
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if target.parent.name == "earlier_1" and self.name.startswith("training_state"):
            raise OSError(16, "Device or resource busy")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RunFolderError, match=r"cannot be moved to .*earlier_1 \(Device or resource busy\): give anot"):
        set_aside(used)
    assert {path.name for path in used.iterdir()} == before
