"""Processes that train together, as torchrun starts them, but forked from one process that has imported everything.

A script ends in start(job), and a test calls run(script, folder, 2). tests/cli/test_torchrun.py uses torchrun itself.
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


def run(script: Path, folder: Path, processes: int) -> list[dict[str, Any]]:
    """Runs the script's job in so many processes; returns what each wrote to folder/seen_RANK.pt."""
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a process with threads cannot be forked
    search = os.pathsep.join([str(TESTS), str(TESTS / "support"), *sys.path])
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(processes)],
        capture_output=True, text=True, timeout=300, env={**os.environ, **one_thread, "PYTHONPATH": search},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Warning" not in done.stderr, done.stderr
    return [torch.load(folder / f"seen_{rank}.pt", weights_only=False) for rank in range(processes)]


def start(job: Callable[[Path], None]) -> None:
    """Calls job(folder) in each of the processes that the command line asks for, with torchrun's environment."""
    folder, processes = Path(sys.argv[1]), int(sys.argv[2])
    for name in ("torch._dynamo", "torch.distributed.fsdp"):
        importlib.import_module(name)  # each process would spend seconds on these
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    method = "fork" if sys.platform == "linux" else "spawn"
    torch.multiprocessing.start_processes(_rank, (job, folder, processes, port), processes, start_method=method)


def _rank(rank: int, job: Callable[[Path], None], folder: Path, processes: int, port: int) -> None:
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({name: str(value) for name, value in own.items()})
    job(folder)
