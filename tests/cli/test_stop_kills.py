"""A run that is stopped dozens of times in each way that costs runs elsewhere is the run that never was.

Two processes in one folder, hang-ups with a pipe that closes, and a disk that is full at each kind of write. Each life
of a run is forked from a process that is this file, called as a script (forks.py).
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from forks import Forks, command, serve, wait_for
from same_runs import assert_same_files
from transformer.reporting.metrics_log import METRICS_FILE

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")]

STOPS = 40
STATE = "training_state_byte.pt"
LINE = [
    "train", "--preset=tiny", "--dataset=story.txt", "--max-steps=1000", "--epochs=100", "--accumulation-steps=6",
    "--keep-last=2",
    "--seq-length=16", "--batch-size=4", "--d-model=16", "--d-ff=32", "--num-layers=1", "--eval-every=25",
    "--log-every=3", "--save-every-minutes=0.002", "--validation-tokens=500", "--device=cpu", "--checkpoint-dir=run",
    "--trackers",
]  # fmt: skip
KINDS = {
    "a state": f".{STATE}.*.tmp",
    "an epoch": ".model_epoch_*.tmp",
    "metrics": METRICS_FILE,
    "metrics of a resumed run": f".{METRICS_FILE}.*.tmp",
    "a picture": ".loss_curve.*.tmp",
    "a tracker": "events.out.tfevents.*",
}
"""The kinds of writes, and the name of the file that is opened for each."""


def train(job: dict[str, Any]) -> None:
    """As command(), but from the moment a file named as job["full_at"] is opened, no file grows beyond 100 bytes."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    resource = sys.modules["resource"]
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    left = [job.get("later", 0)]

    def hook(event: str, values: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(values[0], str) and fnmatch.fnmatch(Path(values[0]).name, job["full_at"]):
            left[0] -= 1
            if left[0] == -1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))

    if job.get("full_at"):
        sys.addaudithook(hook)
    command(job)


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    pytest.importorskip("resource")
    with contextlib.closing(Forks(__file__, "http://localhost:9")) as process:
        yield process


class Run:
    """A run in the folder `folder`/run, which takes several lives."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        chance = Random(0)
        words = ["".join(chance.choices("abcdefgh", k=4)) for _ in range(90)]
        text = "\n".join(" ".join(chance.choices(words, k=12)) for _ in range(150))
        (folder / "story.txt").write_text(text, encoding="utf-8")
        self.folder, self.run, self.lives = folder, folder / "run", 0

    def job(self, *flags: str, **more: Any) -> dict[str, Any]:
        self.lives += 1
        resume = ["--resume"] if any(self.run.glob("training_state_*")) else []
        out = str(self.folder / f"out_{self.lives}")
        return {"arguments": [LINE[0], *resume, *LINE[1:], *flags], "folder": str(self.folder), "out": out, **more}

    def metrics(self) -> tuple[int, int]:
        """The identity of the metrics file, which each process replaces when it begins to train, and its lines."""
        with contextlib.suppress(FileNotFoundError), (self.run / METRICS_FILE).open("rb") as file:
            return os.fstat(file.fileno()).st_ino, file.read().count(b"\n")
        return 0, 0

    def wait_for_events(self, before: tuple[int, int], count: int, is_over: Callable[[], bool]) -> None:
        """Until the process has begun to train and has written so many events."""
        begun: list[int] = []

        def happens() -> bool:
            file, lines = self.metrics()
            if file != before[0] and lines:
                begun.append(lines)
            return is_over() or bool(begun and lines >= begun[0] + count)

        wait_for(happens)


def is_dead(pid: int) -> bool:
    """Whether the process, which is another one's child, has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture(scope="module")
def whole(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that nobody stops."""
    run = Run(tmp_path_factory.mktemp("runs") / "whole")
    forks.run(run.job())
    return run


def test_of_two_processes_in_a_folder_one_is_refused_and_the_other_is_killed(
    forks: Forks, whole: Run, tmp_path: Path
) -> None:
    run, chance = Run(tmp_path / "two"), Random(1)
    for number in range(STOPS):
        jobs = [run.job(delay=chance.choice([0, 0, 0.05, 0.3])) for _ in range(2)]
        before, pids = run.metrics(), forks.start(*jobs)
        wait_for(lambda pids=pids: any(map(is_dead, pids)))  # type: ignore[misc]
        refused = 0 if is_dead(pids[0]) else 1
        assert not is_dead(pids[1 - refused]), f"life {number}: both are over"
        assert re.fullmatch(
            rf"error: run is in use by process {pids[1 - refused]} on .*\n",
            Path(jobs[refused]["out"] + ".err").read_text(),
        )
        run.wait_for_events(before, chance.randrange(6), lambda pid=pids[1 - refused]: is_dead(pid))  # type: ignore[misc]
        os.kill(pids[1 - refused], signal.SIGKILL)
        statuses = forks.statuses()
        assert (statuses[refused], statuses[1 - refused]) == (2, -signal.SIGKILL), f"life {number}"
    forks.run(run.job())
    assert_same_files(run.run, whole.run)


def test_hang_ups_and_pipes_that_close_lose_not_one_step(forks: Forks, whole: Run, tmp_path: Path) -> None:
    run, chance = Run(tmp_path / "hung_up"), Random(2)
    for number in range(STOPS):
        job = run.job()
        os.mkfifo(job["out"])
        reader = os.open(job["out"], os.O_RDONLY | os.O_NONBLOCK)
        before, [pid] = run.metrics(), forks.start(job)
        run.wait_for_events(before, chance.randrange(8), lambda pid=pid: is_dead(pid))  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.02))
        acts = [lambda reader=reader: os.close(reader), *[lambda pid=pid: os.kill(pid, signal.SIGHUP)] * 2]  # type: ignore[misc]
        chance.shuffle(acts)
        for act in acts:
            act()
        assert forks.statuses() == [128 + signal.SIGHUP], f"life {number}"
        said = Path(job["out"] + ".err").read_text()
        assert re.fullmatch(r"(standard output can no longer be written \(Broken pipe\): .*\n)?", said), said
    forks.run(run.job())
    assert_same_files(run.run, whole.run)


def test_a_disk_that_is_full_at_any_write_costs_no_saved_step(forks: Forks, whole: Run, tmp_path: Path) -> None:
    run, chance = Run(tmp_path / "full"), Random(3)
    statuses: Counter[tuple[str, int]] = Counter()
    for number in range(STOPS):
        kind = list(KINDS)[number % len(KINDS)]
        for full in (KINDS[kind], None):  # and then a life with room, which gets a little further
            job = run.job(
                "tensorboard", full_at=full, later=chance.randrange(2) if kind in ("a state", "metrics") else 0
            )
            before, [pid] = run.metrics(), forks.start(job)
            run.wait_for_events(before, chance.randrange(2, 6), lambda pid=pid: is_dead(pid))  # type: ignore[misc]
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            [status] = forks.statuses()
            said = Path(job["out"] + ".err").read_text()
            if full:
                statuses[kind, status] += 1
                assert re.fullmatch(r"(error: .*\n?)?(standard output can no .*\n?)?(error: .*\n?)?", said), said
            else:
                assert (status, said) == (128 + signal.SIGTERM, ""), f"life {number}: {status} {said}"
            assert not list(run.run.glob(".*.tmp"))
    print(dict(statuses))
    assert {kind for kind, status in statuses} == set(KINDS)
    assert {status for kind, status in statuses if kind in ("a picture", "a tracker")} == {128 + signal.SIGTERM}
    forks.run(run.job())
    shutil.rmtree(run.run / "tensorboard")
    assert_same_files(run.run, whole.run)


if __name__ == "__main__":
    import resource  # noqa: F401

    serve(train)
