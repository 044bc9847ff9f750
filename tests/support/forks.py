"""Jobs in forked processes, which can be killed at any moment: a fork costs milliseconds, loading PyTorch seconds.

The process that forks has loaded everything. It is the test file itself, called as a script that ends in serve(do),
with the function that does a job in the child; command() is one.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformer.config import DataConfig
from transformer.data.open import open_dataset

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 90.0
"""Seconds after which something that should happen has not."""


def command(job: dict[str, Any]) -> None:
    """Calls main.py with job["arguments"] in the folder job["folder"], with its output in job["out"]."""
    from main import main

    os.chdir(job["folder"])
    os.dup2(os.open(job["out"], os.O_WRONLY | os.O_CREAT), 1)
    if status := main(job["arguments"]):
        raise SystemExit(status)


def fork(do: Callable[[dict[str, Any]], None], job: dict[str, Any]) -> int:
    """Returns the id of a child that waits job["delay"] seconds and then does the job; its errors are in .err."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        os.dup2(os.open(job["out"] + ".err", os.O_WRONLY | os.O_CREAT), 2)
        time.sleep(job.get("delay", 0.0))
        do(job)
        sys.stdout.flush()
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def serve(do: Callable[[dict[str, Any]], None]) -> None:
    """Forks the jobs of each line of standard input; answers with a line of their ids and one of their statuses."""
    sys.path[:0] = [str(ROOT)]
    for name in (
        "huggingface_hub.errors",
        "huggingface_hub.hf_api",
        "matplotlib.figure",
        "torch._dynamo",
        "main",
        "transformer.cli.train.command",
        "transformer.cli.generate.command",
    ):
        importlib.import_module(name)  # torch._dynamo: the first optimizer loads it, for seconds
    with contextlib.suppress(ValueError):  # a file is no folder for a cache: this only loads what the hub needs
        open_dataset(DataConfig(cache_dir=__file__))
    assert threading.active_count() == 1, "a process with threads cannot be forked"
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        pids = [fork(do, job) for job in json.loads(line)]
        print(json.dumps(pids), flush=True)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), flush=True)


class Forks:
    """The process that forks: `script`, which calls serve(). Jobs of one call run at the same time."""

    def __init__(self, script: str, endpoint: str) -> None:
        paths = [str(ROOT / "tests" / "support"), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "PYTHONPATH": os.pathsep.join(paths)}
        self.process = subprocess.Popen(
            [sys.executable, script],
            env={**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._answer() == "ready"

    def start(self, *jobs: dict[str, Any]) -> list[int]:
        """Returns the ids of the processes."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(jobs) + "\n")
        self.process.stdin.flush()
        pids: list[int] = self._answer()
        return pids

    def statuses(self) -> list[int]:
        """Waits for the jobs started last; a process that was killed has the signal's negative number."""
        statuses: list[int] = self._answer()
        return statuses

    def run(self, *jobs: dict[str, Any]) -> None:
        """Does the jobs, which must end well."""
        self.start(*jobs)
        assert self.statuses() == [0] * len(jobs), [Path(job["out"] + ".err").read_text() for job in jobs]

    def kill(self, pids: Sequence[int]) -> None:
        """Kills what was started last, and waits until it is dead."""
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert self.statuses() == [-signal.SIGKILL] * len(pids)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # jobs too, where a test failed in between
        self.process.communicate()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


def wait_for(happens: Callable[[], bool], pause: float = 0.005) -> None:
    end = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < end, "it took too long"
        time.sleep(pause)
