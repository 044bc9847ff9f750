"""Threads that wait for each other give their cores to other programs, if any run when a command starts."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from transformer.cli import waiting
from transformer.cli.app import COMMANDS, WITHOUT_PRODUCTS

ROOT = Path(__file__).resolve().parents[2]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which threads run")
CROWD = 4 * (os.cpu_count() or 1)
PASSIVE = {"OMP_WAIT_POLICY": "passive"}
Running = Callable[..., None]


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    """running(9, own="RS"): nine threads run on this Linux machine; of our own two, one runs and one sleeps."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(waiting, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(waiting, "LOADAVG", tmp_path / "loadavg")
    monkeypatch.setattr(waiting, "OWN_THREADS", tmp_path / "task")

    def call(threads: int | str, own: str = "R") -> None:
        (tmp_path / "loadavg").write_text(f"7.10 7.20 7.30 {threads}/900 4711\n")
        for number, state in enumerate(own):
            (tmp_path / "task" / str(number)).mkdir(parents=True, exist_ok=True)
            (tmp_path / "task" / str(number) / "stat").write_text(f"{number} (py) R (x) {state} 1 1 0\n")

    return call


def test_threads_give_way_to_programs_that_run(running: Running) -> None:
    running(1 + CROWD)
    assert waiting.waiting({}) == PASSIVE


def test_on_an_idle_machine_nothing_is_set(running: Running) -> None:
    running(1)  # this process, which reads the file; the averages of 7 are those of commands that have ended
    assert waiting.waiting({}) == {}


def test_own_threads_are_no_other_program(running: Running) -> None:
    running(3 + CROWD, own="RSRR")
    assert waiting.others_running() == CROWD
    running(3, own="RSRR")
    assert waiting.others_running() == 0


@pytest.mark.parametrize("threads", ["0", "x", ""])
def test_a_system_that_does_not_say_what_runs_counts_as_idle(running: Running, threads: str) -> None:
    running(threads)  # some sandboxes say 0, though the process that reads it runs
    assert waiting.waiting({}) == {}


def test_a_missing_file_counts_as_idle(running: Running) -> None:
    assert waiting.waiting({}) == {}


@pytest.mark.parametrize(
    "environment",
    [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": ""}, {"OMP_NUM_THREADS": "1"}],
)
def test_nothing_is_set_for_a_user_who_has_chosen_or_a_single_thread(
    running: Running, environment: dict[str, str]
) -> None:
    running(1 + CROWD)
    assert waiting.waiting(environment) == {}
    assert waiting.waiting({"OMP_NUM_THREADS": "2"}) == PASSIVE


def test_nothing_is_set_under_torchrun(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    running(1 + CROWD)
    for name, value in {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert waiting.waiting({}) == {}


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_nothing_is_set_where_it_is_unmeasured(running: Running, monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    running(1 + CROWD)
    monkeypatch.setattr(sys, "platform", system)
    assert waiting.waiting({}) == {}


def test_only_a_user_at_a_terminal_is_told(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(threads: int, is_terminal: bool) -> str:
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda: is_terminal, raising=False)
        monkeypatch.setattr(sys, "stderr", stream)
        running(threads)
        waiting.choose_waiting({})
        return stream.getvalue()

    assert "another program uses the cores" in told(1 + CROWD, is_terminal=True)
    assert told(1 + CROWD, is_terminal=False) == told(1, is_terminal=True) == ""


def test_the_commands_that_need_none_exist() -> None:
    assert set(COMMANDS) > WITHOUT_PRODUCTS


@LINUX
def test_the_real_files_can_be_read() -> None:
    assert waiting.LOADAVG.read_text().split()[3].count("/") == 1
    assert 0 <= waiting.others_running() < 10_000


@LINUX
@pytest.mark.parametrize(
    "program",
    [[sys.executable, str(ROOT / "main.py")], [str(Path(sysconfig.get_path("scripts")) / "transformer")]],
    ids=["main.py", "transformer"],
)
def test_pytorch_reads_what_was_set(tmp_path: Path, program: Sequence[str]) -> None:
    """GCC's OpenMP prints the settings that it has read when torch is imported; passive threads never spin."""
    (tmp_path / "loadavg").write_text(f"0 0 0 {99 * CROWD}/{999 * CROWD} 1\n")
    (tmp_path / "sitecustomize.py").write_text(
        "from pathlib import Path\nfrom transformer.cli import waiting\nwaiting.LOADAVG = Path('loadavg')\n"
    )
    kept = {name: value for name, value in os.environ.items() if name not in (waiting.POLICY, waiting.SPIN_COUNT)}
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    done = subprocess.run(
        [*program, "generate", "--checkpoint", "missing.pt"], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "2", "OMP_DISPLAY_ENV": "verbose"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "GOMP_SPINCOUNT = '0'" in done.stderr
    assert "no checkpoint missing.pt" in done.stderr
