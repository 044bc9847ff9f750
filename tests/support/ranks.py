"""Processes that train together, as torchrun starts them, but forked from one process that has imported everything.

A script ends in start(job), and a test calls run(script, folder, 2) or seen(script, folder, 2). The slow tests of
tests/cli/test_torchrun.py use torchrun itself.
"""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.multiprocessing

TESTS = Path(__file__).resolve().parents[1]


def run(script: Path, folder: Path, processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the script's job in the folder, in so many processes."""
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a process with threads cannot be forked
    search = os.pathsep.join([str(TESTS), str(TESTS / "support"), *sys.path])
    return subprocess.run(
        [sys.executable, str(script), str(processes), *arguments], cwd=folder, capture_output=True, text=True,
        timeout=300, env={**os.environ, **one_thread, "PYTHONPATH": search},
    )  # fmt: skip


def seen(script: Path, folder: Path, processes: int, *arguments: str) -> list[dict[str, Any]]:
    """Runs the script; returns what each process wrote to seen_RANK.pt."""
    done = run(script, folder, processes, *arguments)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Warning" not in done.stderr, done.stderr
    return [torch.load(folder / f"seen_{rank}.pt", weights_only=False) for rank in range(processes)]


def start(job: Callable[[], object], *modules: str) -> None:
    """Calls the job in each of the processes that the command line asks for, with torchrun's environment.

    `modules` are imported before, once for all.
    """
    for name in ("torch._dynamo", "torch.distributed.fsdp", *modules):
        importlib.import_module(name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes, method = int(sys.argv[1]), "fork" if sys.platform == "linux" else "spawn"
    torch.multiprocessing.start_processes(_rank, (job, processes, port), processes, start_method=method)


def _rank(rank: int, job: Callable[[], object], processes: int, port: int) -> None:
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({name: str(value) for name, value in own.items()})
    job()
