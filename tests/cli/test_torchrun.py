"""`torchrun main.py train` as a user types it: what it computes, what it prints, how it ends.

A quick test has processes forked by ranks.py, and a slow one, otherwise the same, those of torchrun.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import ranks
from transformer.cli import console
from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.training import checkpoint
from transformer.training.events import EvalMetrics, RunEnded, StepMetrics

pytestmark = pytest.mark.usefixtures("plain_pictures")

ROOT = Path(__file__).resolve().parents[2]
RUN = ("train", "--preset", "tiny", "--device", "cpu", "--dropout", "0", "--max-steps", "12", "--log-every", "1")
LOOKS = ("--eval-every", "6", "--accumulation-steps", "2", "--precision", "float32")  # compared to rounding
Command = Callable[..., Any]


def torchrun(processes: int, *arguments: str) -> list[str]:
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, *start, str(ROOT / "main.py"), *arguments]


def run_together(folder: Path, processes: int, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        torchrun(processes, *arguments), cwd=folder, capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def told_by_us(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Returns the lines of standard error that the processes wrote, without torchrun's own report."""
    return [line for line in done.stderr.splitlines() if line.startswith(("error", "rank"))]


def assert_same_run(one: Path, other: Path) -> None:
    """Equal to rounding: the same losses over the same tokens, the same weights."""
    curves = []
    for folder in (one, other):
        events = read_metrics(folder / METRICS_FILE)
        curves.append([event for event in events if isinstance(event, StepMetrics | EvalMetrics)])
    assert [(type(e), e.step, e.tokens) for e in curves[0]] == [(type(e), e.step, e.tokens) for e in curves[1]]
    assert [e.loss for e in curves[0]] == pytest.approx([e.loss for e in curves[1]], rel=1e-5)
    ours, theirs = (checkpoint.load(checkpoint.epochs(folder)[-1])["model"] for folder in (one, other))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if not name.endswith("qkv.bias"):  # the keys' bias has a gradient of rounding noise alone
            torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.fixture
def alone(command: Command, tmp_path: Path) -> Path:
    """A run of one process: 12 steps of 16 rows, in two micro-batches."""
    outcome = command(*RUN, *LOOKS, "--batch-size", "8", "--checkpoint-dir", "alone")
    assert outcome.status == 0, outcome.err
    return tmp_path / "alone"


@pytest.mark.parametrize(
    ("run", "processes"),
    [
        (partial(ranks.run, ROOT / "tests" / "cli" / "together.py"), 2),
        pytest.param(run_together, 2, marks=pytest.mark.slow),
        pytest.param(run_together, 4, marks=pytest.mark.slow),
    ],
    ids=["2 forks", "torchrun", "torchrun, 4"],
)
def test_several_processes_learn_what_one_learns_and_one_of_them_speaks(
    alone: Path, tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]], processes: int
) -> None:
    share = ("--batch-size", str(8 // processes))
    (tmp_path / "together").mkdir()
    (tmp_path / "together" / "training_state_byte.pt").touch()  # an earlier run's
    done = run(tmp_path, processes, *RUN, *LOOKS, *share, "--checkpoint-dir", "together")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert_same_run(alone, tmp_path / "together")
    told = ("held an earlier run", "parameters:", "12 steps of 512 tokens", "step 6: validation loss", "loss curve:")
    assert [done.stdout.count(line) for line in told] == [1] * len(told), done.stdout
    names = {path.name for path in (tmp_path / "together").iterdir()}
    assert names == {path.name for path in alone.iterdir()} | {"earlier_1"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send to a process")
def test_sigterm_stops_all_after_one_step_and_one_process_goes_on_exactly_there(
    command: Command, signalled: Command, alone: Path, tmp_path: Path
) -> None:
    more = ("--max-steps", "100000", "--checkpoint-dir", "stopped", "--batch-size", "4")
    line = torchrun(2, *RUN, *LOOKS, *more)
    status, out, err = signalled(line, "stopped", signal.SIGTERM)
    assert status != 0
    assert not re.search("^error", err, re.MULTILINE), err
    end = read_metrics(tmp_path / "stopped" / METRICS_FILE)[-1]
    assert isinstance(end, RunEnded)
    assert end.stopped
    assert out.count(f"stopped at step {end.step}; --resume continues from exactly there") == 1
    assert "loss curve: " in out
    state = checkpoint.load(tmp_path / "stopped" / "training_state_byte.pt")
    assert (state["step"], state["tokens"]) == (end.step, end.tokens)
    kept = (tmp_path / "stopped" / "training_state_byte.pt").read_bytes()
    to = ("--checkpoint-dir", "stopped", "--max-steps", str(end.step + 2))
    outcome = command("train", "--resume", *to)
    assert outcome.status == 0, outcome.err
    told = " ".join(outcome.out.split())
    assert "with another number of processes, 1 for 2, a step takes 8 rows, not 16" in told
    assert checkpoint.load(tmp_path / "stopped" / "training_state_byte.pt")["tokens"] == end.tokens + 2 * 256
    (tmp_path / "stopped" / "training_state_byte.pt").write_bytes(kept)
    outcome = command("train", "--resume", *to, "--batch-size", "8")  # as the preset has it, and the run has not
    assert outcome.status == 0, outcome.err
    assert "a step takes" not in outcome.out
    assert checkpoint.load(tmp_path / "stopped" / "training_state_byte.pt")["tokens"] == end.tokens + 2 * 512


def process_of_rank(rank: int, agent: int) -> int:
    """Returns the id of the process that this torchrun has given the rank."""
    for child in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        if f"\0RANK={rank}\0".encode() in Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise AssertionError(f"there is no process of rank {rank}")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks its processes up in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_job_that_loses_a_process_is_restarted_and_ends_with_the_same_weights(tmp_path: Path, rank: int) -> None:
    steps = ("--max-steps", "60", "--log-every", "5", "--eval-every", "30", "--save-every-steps", "5")
    line = torchrun(2, "train", "--preset", "tiny", "--device", "cpu", "--batch-size", "4", *steps, "--checkpoint-dir")
    line.insert(line.index("--standalone"), "--max-restarts=2")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*line, "whole"], cwd=tmp_path, capture_output=True, timeout=300, check=True, env=environment)
    with subprocess.Popen(
        [*line, "killed"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        metrics = tmp_path / "killed" / METRICS_FILE
        while not (metrics.exists() and '"step": 25' in metrics.read_text()):
            assert running.poll() is None, running.communicate()
            time.sleep(0.01)
        os.kill(process_of_rank(rank, running.pid), signal.SIGKILL)
        out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert out.count("torchrun restarted this job, restart 1: it resumes from killed") == 1
    again = re.search(r"resuming from killed.*, step (\d+),", out)
    assert again is not None
    assert 20 <= int(again[1]) < 60, "the run was over before its process was killed: give it more steps"
    assert not (tmp_path / "killed" / "earlier_1").exists()
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    ours, theirs = (checkpoint.load(tmp_path / name / "model_epoch_1_byte.pt")["model"] for name in ("whole", "killed"))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())  # dropout's draws too


@pytest.mark.slow
def test_several_processes_begin_with_a_checkpoint_as_one_does(command: Command, alone: Path, tmp_path: Path) -> None:
    init = ("--init-from", str(Path("alone") / "best"))
    assert command(*RUN, *LOOKS, *init, "--batch-size", "8", "--checkpoint-dir", "one").status == 0
    done = run_together(tmp_path, 2, *RUN, *LOOKS, *init, "--batch-size", "4", "--checkpoint-dir", "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("starting from the weights of ") == 1
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("local_rank", ["0", "1"])
def test_local_rank_0_reports_a_misspelt_flag_and_the_others_wait_in_silence(
    command: Command, monkeypatch: pytest.MonkeyPatch, local_rank: str
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": local_rank, "LOCAL_RANK": local_rank}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(console, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(os, "_exit", lambda status: None)  # how one of several processes ends
    try:
        status, _, err = command(*RUN, "--batch-sise", "4")
    except SystemExit as stop:
        status, err = stop.code, ""
    assert status == 2
    assert ("did you mean --batch-size?" in err) == (local_rank == "0")


@pytest.mark.slow
def test_a_misspelt_flag_is_one_line(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The process that says it is late: the other one must not end the job before it has spoken."""
    late = tmp_path_factory.mktemp("late")
    (late / "sitecustomize.py").write_text("import os, time\ntime.sleep(4 * (os.environ.get('LOCAL_RANK') == '0'))\n")
    search = os.pathsep.join([str(late), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = run_together(tmp_path, 2, *RUN, "--batch-sise", "4", PYTHONPATH=search)
    assert done.returncode != 0
    assert len(told_by_us(done)) == 1, done.stderr
    assert "did you mean --batch-size?" in told_by_us(done)[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_error_of_the_first_process_is_the_only_line_and_ends_the_job(tmp_path: Path) -> None:
    done = run_together(tmp_path, 2, *RUN, "--dataset", "nowhere.txt")
    assert done.returncode != 0
    assert len(told_by_us(done)) == 1, done.stderr
    assert told_by_us(done)[0].startswith("error: rank 0: ")
    assert "nowhere.txt" in told_by_us(done)[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_processes_share_a_model_and_one_goes_on_with_it_and_back(
    command: Command, alone: Path, tmp_path: Path
) -> None:
    to = ("--checkpoint-dir", "shared")
    done = run_together(tmp_path, 2, *RUN, *LOOKS, "--batch-size", "4", "--shard", *to, "--max-steps", "8")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    folder = tmp_path / "shared"
    assert {path.name for path in folder.glob("training_state_*")} == {
        "training_state_byte", "training_state_byte_previous",
    }  # fmt: skip
    outcome = command("train", "--resume", *to, "--max-steps", "10", "--batch-size", "8")
    assert outcome.status == 0, outcome.err
    assert f"resuming from shared{os.sep}training_state_byte, step 8," in outcome.out
    done = run_together(tmp_path, 2, "train", "--resume", *to, "--max-steps", "12", "--batch-size", "4", "--shard")
    assert done.returncode == 0, done.stderr
    assert f"resuming from shared{os.sep}training_state_byte.pt, step 10," in done.stdout
    losses = [event.loss for event in read_metrics(folder / METRICS_FILE) if isinstance(event, StepMetrics)]
    whole = [event.loss for event in read_metrics(alone / METRICS_FILE) if isinstance(event, StepMetrics)]
    assert losses[0] == pytest.approx(whole[0], rel=1e-5)  # later ones follow another --max-steps, and so other rates
    assert checkpoint.load_model(checkpoint.latest(folder)).contents["step"] == 12
    (folder / "training_state_byte" / "rest.pt").write_bytes(b"")
    shutil.rmtree(folder / "training_state_byte_previous")
    for path in folder.glob("training_state_*.pt"):
        path.unlink()
    done = run_together(tmp_path, 2, "train", "--resume", *to, "--shard")
    assert done.returncode != 0
    assert len(told_by_us(done)) == 1, done.stderr
    assert "training_state_byte is damaged or not a training state: rest.pt has another size" in told_by_us(done)[0]
