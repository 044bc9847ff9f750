"""A run whose files cannot be written, cannot be read or carry a wrong date: what it says, keeps and goes on from."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from same_runs import assert_same_run, undisturbed
from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.trainer import Trainer
from transformer.training import checkpoint
from transformer.training.events import StepMetrics
from transformer.training.run_folder import LOCK

pytestmark = pytest.mark.usefixtures("plain_pictures")

resource = pytest.importorskip("resource", reason="Windows has no limit on the size of files")
Command = Callable[..., Any]
RUN = ("train", "--preset", "tiny", "--device", "cpu", "--max-steps", "30", "--eval-every", "10", "--log-every", "3")
RUN += ("--num-layers", "1", "--batch-size", "2", "--validation-tokens", "300")
STATE, PREVIOUS = "training_state_byte.pt", "training_state_byte_previous.pt"


def assert_same(one: Path, other: Path) -> None:
    """The same run, and the same files."""
    assert_same_run(one, other)
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 steps to which nothing happens."""
    return undisturbed(RUN, tmp_path_factory.mktemp("finished"))


@pytest.fixture
def whole(finished: Path, tmp_path: Path) -> Path:
    """A copy of it in the test's folder."""
    return Path(shutil.copytree(finished, tmp_path / "whole"))


@contextlib.contextmanager
def before_step(step: int, happens: Callable[[], object]) -> Iterator[None]:
    """Something that happens when a run is about to take this step."""
    take = Trainer.train_step

    def train_step(self: Trainer) -> None:
        if self.step == step - 1:
            happens()
        take(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", train_step)
        yield


# No room


@contextlib.contextmanager
def files_of_at_most(count: int) -> Iterator[Callable[[], None]]:
    """Yields what lets no file grow beyond so many bytes, which fails as a full disk does, until the context ends."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)  # Python ignores SIGXFSZ, so that a write raises OSError
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)]
    if (
        sys.platform != "linux"
        or shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("this system lets the test mount no small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def assert_stopped_for_want_of_room(outcome: Any, folder: Path, at: range, why: str) -> None:
    """One line that says what to do; the last states are whole, and nothing is half written."""
    assert outcome.status == 2
    said = re.fullmatch(
        rf"error: stopped at step (\d+): no space in \S+ for the file to be saved \({why}\): "
        "free some disk space, then --resume continues from the last saved state\n",
        outcome.err,
    )
    assert said is not None, outcome.err
    assert int(said[1]) in at
    assert checkpoint.load(folder / STATE)["step"] == 10
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == [LOCK]
    assert checkpoint.epochs(folder) == []
    read_metrics(folder / METRICS_FILE)


@pytest.mark.parametrize(("most", "at"), [(20_000, range(20, 21)), (0, range(12, 13))], ids=["a state", "metrics"])
def test_a_run_without_room_for_a_file_keeps_what_it_has_and_goes_on_when_there_is(
    command: Command, whole: Path, tmp_path: Path, most: int, at: range
) -> None:
    with files_of_at_most(most) as limit, before_step(11, limit):
        outcome = command(*RUN, "--checkpoint-dir", "full")
    assert_stopped_for_want_of_room(outcome, tmp_path / "full", at, "File too large")
    resumed = command("train", "--resume", "--checkpoint-dir", "full")
    assert (resumed.status, resumed.err) == (0, "")
    assert_same(tmp_path / "full", whole)


def test_a_run_on_a_full_disk_keeps_what_it_has_and_goes_on_when_there_is_room(
    command: Command, small_disk: Path, whole: Path, tmp_path: Path
) -> None:
    ballast = small_disk / "ballast"

    def fill() -> None:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 12)):
                pass

    with before_step(11, fill):
        outcome = command(*RUN, "--checkpoint-dir", "disk/full")
    assert_stopped_for_want_of_room(outcome, small_disk / "full", range(12, 21), "No space left on device")
    ballast.unlink()
    resumed = command("train", "--resume", "--checkpoint-dir", "disk/full")
    assert (resumed.status, resumed.err) == (0, "")
    assert_same(small_disk / "full", whole)


def test_a_resumed_run_without_room_for_its_metrics_keeps_the_ones_that_are_there(
    command: Command, whole: Path
) -> None:
    """They are rewritten, less what will be told again; a full disk left an empty file in their place."""
    before, names = (whole / METRICS_FILE).read_bytes(), {path.name for path in whole.iterdir()}
    with files_of_at_most(100) as limit:
        limit()
        outcome = command("train", "--resume", "--checkpoint-dir", "whole", "--max-steps", "40")
    assert outcome.status == 2
    assert outcome.err.startswith("error: stopped at step 30: no space in whole")
    assert (whole / METRICS_FILE).read_bytes() == before
    assert {path.name for path in whole.iterdir()} == names


# States that cannot be read


def flip_a_bit(path: Path) -> None:
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)


def test_a_damaged_state_never_takes_the_place_of_the_one_that_is_whole(command: Command, whole: Path) -> None:
    """The run that went on from the state before it saved, and the damaged one became the state before that."""
    flip_a_bit(whole / STATE)
    outcome = command("train", "--resume", "--checkpoint-dir", "whole", "--max-steps", "33")
    assert (outcome.status, outcome.err) == (0, "")
    assert "is damaged or not a checkpoint" in outcome.out
    assert f"resuming from whole{os.sep}{PREVIOUS}, step 30," in outcome.out
    steps = {name: checkpoint.load(whole / name)["step"] for name in (STATE, PREVIOUS)}
    assert steps == {STATE: 33, PREVIOUS: 33}
    assert (whole / f"{STATE}.damaged").exists()


def test_where_both_states_are_damaged_nothing_is_changed(command: Command, whole: Path) -> None:
    for name in (STATE, PREVIOUS):
        flip_a_bit(whole / name)
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    outcome = command("train", "--resume", "--checkpoint-dir", "whole")
    assert outcome.status == 2
    assert re.fullmatch(rf"error: \S+{PREVIOUS} is damaged or not a checkpoint: .*\n", outcome.err)
    assert f"{STATE} is damaged" in outcome.out
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


class Hostile:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch proof",)


@pytest.mark.parametrize("kind", ["nothing", "hostile", "hostile, of PyTorch", "another model's", "a folder"])
def test_a_file_that_is_no_state_is_one_line_that_names_it_and_nothing_in_it_runs(
    command: Command, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "run" / STATE
    path.parent.mkdir()
    if kind == "nothing":
        path.touch()
    elif kind == "hostile":
        path.write_bytes(pickle.dumps(Hostile()))
    elif kind == "hostile, of PyTorch":
        torch.save({"format": 1, "model": Hostile()}, path)
    elif kind == "another model's":
        torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    else:
        path.mkdir()
    outcome = command("train", "--preset", "tiny", "--resume", "--checkpoint-dir", "run")
    assert outcome.status == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert str(Path("run", STATE)) in outcome.err
    assert not (tmp_path / "proof").exists()
    assert {entry.name for entry in (tmp_path / "run").iterdir()} == {STATE, LOCK}


# The clock

DAY = 86_400


@pytest.mark.parametrize("jump", [-400 * DAY, 400 * DAY])
def test_dates_decide_neither_which_state_nor_which_epoch(command: Command, whole: Path, jump: int) -> None:
    """Where the clock was set back during a run, the state before the last has the later date."""
    now = time.time()
    for path in whole.iterdir():
        os.utime(path, (now, now + (jump if path.name in {STATE, "model_epoch_1_byte.pt"} else 0)))
    contents = checkpoint.load(whole / PREVIOUS)
    checkpoint.save(whole / PREVIOUS, {**contents, "step": 29})
    checkpoint.save(whole / "model_epoch_2_byte.pt", checkpoint.load(whole / "model_epoch_1_byte.pt"))
    for name, when in ((PREVIOUS, now), ("model_epoch_2_byte.pt", now - jump)):
        os.utime(whole / name, (when, when))
    assert checkpoint.latest(whole).name == "model_epoch_2_byte.pt"
    outcome = command("train", "--resume", "--checkpoint-dir", "whole", "--max-steps", "33")
    assert (outcome.status, outcome.err) == (0, "")
    assert f"resuming from whole{os.sep}{STATE}, step 30," in outcome.out


def test_a_clock_that_jumps_changes_neither_the_run_nor_when_it_saves(
    command: Command, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = itertools.cycle([0.0, 400.0 * DAY, -400.0 * DAY, 1e-3])
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    outcome = command(*RUN, "--checkpoint-dir", "jumping", "--save-every-minutes", "1e-9")
    assert (outcome.status, outcome.err) == (0, "")
    assert_same(tmp_path / "jumping", whole)
    assert checkpoint.load(tmp_path / "jumping" / PREVIOUS)["step"] == 30
    events = [event for event in read_metrics(tmp_path / "jumping" / METRICS_FILE) if isinstance(event, StepMetrics)]
    assert all(0 < event.seconds < 600 and event.tokens_per_second > 0 for event in events)
