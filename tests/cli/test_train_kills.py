"""A run on streamed text, killed with SIGKILL again and again and resumed each time, is the run that nobody killed.

Runs are forked from a process that is this file, called as a script (forks.py), and a few are processes of their own.
"""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from forks import ROOT, Forks, command, serve, wait_for
from same_runs import assert_same_files
from stand_in_hub import FINEWEB, StandInHub, fineweb_files
from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.training.events import EpochMetrics, RunStarted, StepMetrics

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")]

KILLS = 60
EVAL_EVERY = 10
SETTINGS: dict[str, Any] = {
    "dataset": "fineweb", "encoding": "byte", "seq-length": 16, "batch-size": 4, "accumulation-steps": 2,
    "dropout": 0.1, "optimizer": "muon", "tokens-per-epoch": 128 * 25, "epochs": 12, "shuffle-rows": 64,
    "eval-every": EVAL_EVERY, "log-every": 3, "save-every-minutes": 0.001, "validation-tokens": 2_000,
    "cache-shards": 2, "num-workers": 1, "device": "cpu", "d-model": 16, "d-ff": 32, "num-layers": 1,
}  # fmt: skip
"""300 steps, over more than one pass of a text of 9 shards, of which the cache holds 2."""
STATE, RUN = "training_state_byte.pt", "checkpoints_tiny"
DELICATE = [
    ["os.rename", STATE, "training_state_byte_previous.pt"],
    ["os.rename", f".{STATE}.*.tmp", STATE],
    ["os.rename", "*", METRICS_FILE],
    ["open", ".model_epoch_*.tmp"],
    ["os.rename", ".model_epoch_*.tmp", "model_epoch_*_byte.pt"],
    ["open", f".{STATE}.*.tmp"],
]
"""Moments that a poll would hardly ever meet: Python is about to call this, with files of these names."""

PHASES = {
    "starting", "stepping", "saving a state", "between the two renames", "looking", "after a look", "saving an epoch",
    "after an epoch",
}  # fmt: skip
"""What the process was at when it was killed, by what it left."""


def train(job: dict[str, Any]) -> None:
    """As command(); but where job["dies_at"] names a moment, the process kills itself at that moment."""

    def hook(event: str, values: tuple[Any, ...]) -> None:
        if event == moment and len(values) >= len(names):
            found = [Path(value).name for value in values[: len(names)] if isinstance(value, str | Path)]
            if len(found) == len(names) and all(map(fnmatch.fnmatch, found, names)):
                os.kill(os.getpid(), signal.SIGKILL)

    if job.get("dies_at"):
        moment, *names = job["dies_at"]
        sys.addaudithook(hook)
    command(job)


@pytest.fixture(scope="module")
def hub() -> Iterator[StandInHub]:
    """150 documents of random words in 3 files, in row groups of 3."""
    chance = Random(0)
    words = ["".join(chance.choices("abcdefghijklmnop", k=chance.randint(2, 7))) for _ in range(300)]
    with StandInHub() as server:
        server.add(FINEWEB, fineweb_files([" ".join(chance.choices(words, k=40)) for _ in range(150)], 3, 3))
        yield server


@pytest.fixture(scope="module")
def forks(hub: StandInHub) -> Iterator[Forks]:
    with contextlib.closing(Forks(__file__, hub.url)) as process:
        yield process


class Run:
    """A run in a folder of its own, which may take several lives."""

    def __init__(self, folder: Path, hub: StandInHub) -> None:
        folder.mkdir()
        self.folder, self.run, self.hub = folder, folder / RUN, hub
        self.outputs: list[Path] = []
        shard_mb = hub.commit(FINEWEB).files["sample/10BT/000_00000.parquet"].size / 3e6
        self.line = ["train", "--preset=tiny", "--max-steps=300", f"--shard-mb={shard_mb}"]
        self.line += [f"--{name}={value}" for name, value in SETTINGS.items()]

    @property
    def has_state(self) -> bool:
        return any(self.run.glob("training_state_*.pt"))

    def arguments(self) -> list[str]:
        """What a user types: --resume does not go on where there is no state yet, and says so."""
        return [*self.line, *(["--resume"] if self.has_state else [])]

    def job(self, *arguments: str, dies_at: list[str] | None = None) -> dict[str, Any]:
        self.outputs.append(self.folder / f"out_{len(self.outputs)}")
        line = list(arguments) or self.arguments()
        return {"arguments": line, "folder": str(self.folder), "out": str(self.outputs[-1]), "dies_at": dies_at}

    def text(self) -> str:
        """The metrics file, which the run may be writing."""
        file = self.run / METRICS_FILE
        return file.read_text() if file.exists() else ""

    def files(self) -> dict[str, int]:
        """When each file of the run was written last."""
        found = {}
        for path in self.run.iterdir() if self.run.exists() else ():
            with contextlib.suppress(FileNotFoundError):
                found[path.name] = path.stat().st_mtime_ns
        return found

    def is_looking(self) -> bool:
        """Whether it has told of the steps up to a look, and saved its state before the look."""
        found, lines = self.files(), self.text().splitlines()
        steps_told = lines and lines[-1].startswith('{"event": "step"')
        is_due = steps_told and json.loads(lines[-1])["step"] % EVAL_EVERY == 0
        return is_due and found.get(STATE, 0) > found[METRICS_FILE]

    def phase(self, before: dict[str, int], text: str, pid: int) -> str:
        """One of PHASES, for the process with this id."""
        names = self.files()
        if any(name.startswith(".model_epoch") and f".{pid}." in name for name in names):
            return "saving an epoch"
        if any(name.startswith(f".{STATE}.{pid}.") for name in names):
            return "saving a state" if STATE in names else "between the two renames"
        if names.get(METRICS_FILE) == before.get(METRICS_FILE) and self.text() == text:
            return "starting"
        events = read_metrics(self.run / METRICS_FILE)
        last = events[-1] if events else None
        if isinstance(last, RunStarted | StepMetrics):
            return "looking" if self.is_looking() else "stepping"
        return "after an epoch" if isinstance(last, EpochMetrics) else "after a look"


def written(forks: Forks, run: Run) -> str:
    """What `generate` shows for a fixed seed."""
    job = run.job("generate", "--prompt=ab", "--seed=1", "--max-new-tokens=40")
    forks.run(job)
    return Path(job["out"]).read_text()


def assert_same_run(one: Run, other: Run) -> None:
    """All that both have left is the same, but for dates and durations."""
    assert_same_files(one.run, other.run)
    names = {path.name for path in one.run.iterdir()}
    assert {f"model_epoch_{number}_byte.pt" for number in range(1, 13)} | {STATE} <= names
    for run in (one, other):
        shards = {path.name.partition(".")[0] for path in run.folder.rglob("shard_*") if path.suffix == ".parquet"}
        assert 0 < len(shards) <= SETTINGS["cache-shards"]
        assert not [out for out in run.outputs if out.exists() and "damaged" in out.read_text()]


@pytest.fixture(scope="module")
def whole(forks: Forks, hub: StandInHub, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that nobody kills."""
    run = Run(tmp_path_factory.mktemp("runs") / "whole", hub)
    forks.run(run.job())
    return run


def random_moment(chance: Random, run: Run, is_over: Callable[[], bool], is_first: bool) -> None:
    """Waits for a moment drawn by chance: of the start, after so many more events, in a look, or while it saves."""
    text = run.text()
    events = len(text.splitlines()) + chance.randrange(1, 12)
    way = chance.choice(["start", "events", "events", "look", "save"])
    if is_first or way == "start":
        time.sleep(chance.uniform(0, 0.1 if is_first else 1.0))
    elif way == "events":
        wait_for(lambda: is_over() or (run.text() != text and len(run.text().splitlines()) >= events))
        time.sleep(chance.uniform(0, 0.05))
    elif way == "look":
        wait_for(lambda: is_over() or (run.text() != text and run.is_looking()), pause=0.0005)
        time.sleep(chance.uniform(0, 0.005))
    else:
        known = run.files()
        wait_for(lambda: is_over() or any(name.endswith(".tmp") for name in run.files().keys() - known), pause=0.0002)


def is_dead(pid: int) -> bool:
    """Whether the process, which is another one's child, has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


class Process:
    """A life of a run: forked, or a process that begins as a user's does."""

    def __init__(self, run: Run, forks: Forks, dies_at: list[str] | None, is_forked: bool) -> None:
        self.job = run.job(dies_at=dies_at)
        self.forks, self.process = forks, None
        if is_forked:
            [self.pid] = forks.start(self.job)
        else:
            environment = {**os.environ, "HF_ENDPOINT": run.hub.url, "OMP_NUM_THREADS": "1"}
            with open(self.job["out"], "wb") as out, open(self.job["out"] + ".err", "wb") as err:  # noqa: PTH123
                line = [sys.executable, str(ROOT / "main.py"), *self.job["arguments"]]
                self.process = subprocess.Popen(line, cwd=run.folder, env=environment, stdout=out, stderr=err)
            self.pid = self.process.pid

    def status(self) -> int:
        return self.forks.statuses()[0] if self.process is None else self.process.wait()


def test_a_run_killed_dozens_of_times_is_the_run_that_never_was(
    forks: Forks, hub: StandInHub, whole: Run, tmp_path: Path
) -> None:
    killed, chance = Run(tmp_path / "killed", hub), Random(0)
    phases: Counter[str] = Counter()
    aims: Iterator[Any] = itertools.cycle([None, None, *DELICATE, None, None])
    for number in range(KILLS):
        before, text = killed.files(), killed.text()
        is_forked = number % (KILLS // 3) != KILLS // 4
        aim = next(aims) if killed.has_state and is_forked else None
        life = Process(killed, forks, aim, is_forked)
        if aim is None:
            random_moment(chance, killed, lambda life=life: is_dead(life.pid), number < 2)  # type: ignore[misc]
            with contextlib.suppress(ProcessLookupError):
                os.kill(life.pid, signal.SIGKILL)
        assert life.status() == -signal.SIGKILL, f"life {number}: {killed.outputs[-1].read_text()}"
        assert Path(f"{killed.outputs[-1]}.err").read_text() == "", f"life {number}"
        phases[killed.phase(before, text, life.pid)] += 1
    print(f"{KILLS} kills: {dict(phases)}")
    assert set(phases) == PHASES
    forks.run(killed.job())
    assert_same_run(whole, killed)
    assert written(forks, killed) == written(forks, whole)


if __name__ == "__main__":
    serve(train)
