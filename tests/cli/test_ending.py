"""How a run can end before its last step, and what is left then: always a state from which it continues exactly."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import transformer.trainer
from same_runs import assert_same_run, undisturbed
from transformer.distributed.processes import Dist
from transformer.presets import PRESETS
from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.trainer import Trainer
from transformer.training import checkpoint
from transformer.training.events import EvalMetrics, RunEnded
from transformer.training.run_folder import RunLock

pytestmark = pytest.mark.usefixtures("plain_pictures")

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., Any]
RUN = ("train", "--preset", "tiny", "--device", "cpu", "--max-steps", "30", "--eval-every", "10", "--log-every", "3")
RUN += ("--num-layers", "1", "--batch-size", "2", "--validation-tokens", "300", "--trackers")
STATE = "training_state_byte.pt"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 steps to which nothing happens."""
    return undisturbed(RUN, tmp_path_factory.mktemp("finished"))


@pytest.fixture
def whole(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "whole"))


@contextlib.contextmanager
def at(step: int, happens: Callable[[], object], name: str = "train_step") -> Iterator[None]:
    """Something that happens at the start of this step, or when this step calls the function `name`."""
    place: Any = Trainer if name == "train_step" else transformer.trainer
    real, calls = getattr(place, name), [0]

    def call(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == step:
            happens()
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, call)
        yield


def fail() -> None:
    raise RuntimeError("a bug")


# Signals


@pytest.mark.skipif(os.name == "nt", reason="sends signals to this process")
def test_a_closed_terminal_saves_and_the_line_that_is_printed_continues_the_run(
    command: Command, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGHUP ended a run at once, unsaved. A shell and the system may both send it: twice is not more urgent."""

    def hang_up() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)

    with at(12, hang_up), pytest.raises(SystemExit) as stop:
        command(*RUN, "--checkpoint-dir", "my run")
    assert stop.value.code == 128 + signal.SIGHUP
    said = re.search(
        r"stopped at step 12; --resume continues from exactly there: uv run python main.py (train .*)\n",
        capsys.readouterr().out,
    )
    assert said is not None
    assert checkpoint.load(tmp_path / "my run" / STATE)["step"] == 12
    assert command(*shlex.split(said[1])).status == 0
    assert_same_run(tmp_path / "my run", whole)


def test_a_run_can_be_trained_in_a_thread(command: Command, whole: Path, tmp_path: Path) -> None:
    """signal only works in main thread of the main interpreter."""
    outcomes: list[Any] = []
    thread = threading.Thread(target=lambda: outcomes.append(command(*RUN, "--checkpoint-dir", "thread")))
    thread.start()
    thread.join()
    assert [(outcome.status, outcome.err) for outcome in outcomes] == [(0, "")]
    assert_same_run(tmp_path / "thread", whole)


def test_a_stopped_demo_says_how_it_continues(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It printed `--resume`, and `demo --resume` did not exist."""
    small = replace(PRESETS["tiny"], max_steps=6, eval_every=3, log_every=1, checkpoint_dir="checkpoints_demo")
    monkeypatch.setitem(PRESETS, "demo", small)
    with at(2, lambda: os.kill(os.getpid(), signal.SIGTERM)), pytest.raises(SystemExit):
        command("demo", "--seed", "2", "--prompt", "A b")
    said = re.search(r"exactly there: uv run python main.py (demo .* --resume)\n", capsys.readouterr().out)
    assert said is not None
    outcome = command(*shlex.split(said[1]))
    assert (outcome.status, outcome.out.count("A b")) == (0, 3), outcome.err
    assert "resuming from" in outcome.out
    assert "--seed 3: the run has 2" in command("demo", "--resume", "--seed", "3").err


# Errors


@pytest.mark.parametrize("name", ["train_step", "clip_gradients"])
def test_an_error_saves_the_state_as_it_was_before_the_step(
    command: Command, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Within a step dropout has been drawn already; the resumed run draws the same again."""
    with at(13, fail, name), pytest.raises(RuntimeError, match="a bug"):
        command(*RUN, "--checkpoint-dir", "failed")
    where = Path("failed") / STATE
    assert f"stopped at step 12; --resume continues from {where}\n" in capsys.readouterr().out
    assert checkpoint.load(tmp_path / where)["step"] == 12
    outcome = command("train", "--resume", "--checkpoint-dir", "failed")
    assert (outcome.status, outcome.err) == (0, "")
    assert_same_run(tmp_path / "failed", whole)


def test_an_error_before_an_evaluation_leaves_it_pending(command: Command, whole: Path, tmp_path: Path) -> None:
    """The metrics cannot be written at step 10, whose evaluation the resumed run must not forget."""
    metrics, kept = tmp_path / "failed" / METRICS_FILE, tmp_path / "kept"
    with at(10, lambda: (metrics.rename(kept), metrics.mkdir())):
        assert command(*RUN, "--checkpoint-dir", "failed").status == 2
    assert checkpoint.load(tmp_path / "failed" / STATE)["step"] == 10
    metrics.rmdir()
    kept.rename(metrics)
    assert command("train", "--resume", "--checkpoint-dir", "failed").status == 0
    ours, theirs = (
        [(event.step, event.loss) for event in read_metrics(folder / METRICS_FILE) if isinstance(event, EvalMetrics)]
        for folder in (tmp_path / "failed", whole)
    )
    assert ours == theirs


def test_an_error_while_the_weights_change_leaves_the_last_saved_state(
    command: Command, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    step, calls = torch.optim.AdamW.step, [0]

    def fails_after(self: Any, *arguments: Any) -> Any:
        calls[0] += 1
        done = step(self, *arguments)
        return fail() if calls[0] == 13 else done

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", fails_after)
        with pytest.raises(RuntimeError, match="a bug"):
            command(*RUN, "--checkpoint-dir", "torn")
    assert "stopped at step 12; --resume continues from the last saved state in torn\n" in capsys.readouterr().out
    assert checkpoint.load(tmp_path / "torn" / STATE)["step"] == 10
    assert command("train", "--resume", "--checkpoint-dir", "torn").status == 0
    assert_same_run(tmp_path / "torn", whole)


def test_the_advice_after_divergence_works(command: Command, tmp_path: Path) -> None:
    """It advised to resume a state that keeps the rate, and that holds what the rate has made of the weights."""
    diverging = ("--epochs", "2", "--max-steps", "60", "--tokens-per-epoch", "640", "--log-every", "1")
    line = (*RUN, *diverging, "--schedule", "constant", "--warmup-fraction", "0.9", "--learning-rate", "1e25")
    outcome = command(*line)
    assert outcome.status == 2
    said = re.search(r"Start again with a lower learning rate than --learning-rate 1e\+25", outcome.err)
    assert said is not None, outcome.err
    assert "continues from" not in outcome.out.splitlines()[-1]
    init = re.search(r"--init-from (\S+)", outcome.err)
    again = (*RUN, *diverging, "--learning-rate", "1e-3", *(("--init-from", init[1]) if init else ()))
    assert command(*again).status == 0


def test_a_picture_never_decides_the_status_of_a_run(command: Command, tmp_path: Path) -> None:
    (tmp_path / "run" / "loss_curve.png").mkdir(parents=True)
    outcome = command(*RUN, "--checkpoint-dir", "run")
    assert (outcome.status, outcome.err) == (0, "")
    assert re.search(r"loss_curve.png was not drawn \(IsADirectoryError|PermissionError: ", outcome.out)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have only names in Unicode")
def test_a_folder_whose_name_is_not_utf_8_is_as_good_as_any(
    command: Command, tmp_path: Path, whole: Path, plain_pictures: pytest.MonkeyPatch
) -> None:
    """The run ended well, then came a traceback from the picture, and status 1."""
    plain_pictures.undo()
    name = os.fsdecode(b"caf\xe9 \xe8\xae\xad\xe7\xbb\x83")
    outcome = command(*RUN, "--checkpoint-dir", name, "--trackers", "tensorboard")
    assert (outcome.status, outcome.err) == (0, "")
    assert_same_run(tmp_path / name, whole)
    assert (tmp_path / name / "loss_curve.svg").exists()
    assert command("train", "--resume", "--checkpoint-dir", name, "--max-steps", "33").status == 0
    for reads in (("compare", name), ("inspect", f"{name}/{STATE}"), ("plot", name)):
        outcome = command(*reads)
        assert (outcome.status, outcome.err) == (0, ""), reads


# One run in a folder


@pytest.mark.parametrize("flags", [(), ("--resume",), ("--set", "seed=1,2")])
def test_a_second_run_in_a_folder_changes_nothing(command: Command, whole: Path, flags: tuple[str, ...]) -> None:
    with RunLock(Dist(), print) as first:
        first.take(whole)
        before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
        outcome = command(*RUN, "--checkpoint-dir", "whole", *flags)
        assert (outcome.status, outcome.out) == (2, "")
        assert re.fullmatch(rf"error: whole is in use by process {os.getpid()} on .*: wait .*\n", outcome.err)
        assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before
        assert command("plot", "whole").status == 0  # reading, and drawing anew, is no other run


def test_a_home_folder_is_meant_by_a_tilde_in_every_path(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--checkpoint-dir=~/ck` made a folder called ~: shells expand a tilde at the start of a word only."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "notes.txt").write_text("The cat sat on the mat.\n" * 200, encoding="utf-8")
    run = (*RUN, "--dataset=~/notes.txt", "--checkpoint-dir=~/ck", "--max-steps", "2")
    assert command(*run).status == 0
    model = "~/ck/model_epoch_1_byte.pt"
    assert command("generate", f"--checkpoint={model}", "--prompt=~/x", "--max-new-tokens=1").out.startswith("~/x")
    assert command(*run, f"--init-from={model}", "--set", "dataset=~/notes.txt", "--dry-run").status == 0
    assert command("train", f"--resume=~/ck/{STATE}", "--max-steps=3").status == 0
    assert command("export-page", f"--checkpoint={model}", "--out=~/page.html").status == 0
    names = {"notes.txt", "ck", "page.html"}
    assert {path.name for path in (tmp_path / "home").iterdir()} == names
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.skipif(os.name == "nt", reason="closes a pipe as POSIX systems do")
def test_a_closed_pipe_costs_no_step(
    command: Command, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`train | head -9` ended with 1, no word, and no state."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as pipe, at(12, lambda: os.close(reader)):
        monkeypatch.setattr(sys, "stdout", pipe)
        assert command(*RUN, "--checkpoint-dir", "piped").status == 0
    assert_same_run(tmp_path / "piped", whole)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="closes a pipe as POSIX systems do")
def test_a_run_whose_reader_leaves_continues_to_its_end(whole: Path, tmp_path: Path) -> None:
    """`train | head -1` ended with 1, no word, and no state. `main.py` is called through a link here."""
    (tmp_path / "link.py").symlink_to(ROOT / "main.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    line = [sys.executable, "link.py", *RUN, "--checkpoint-dir", "piped"]
    with subprocess.Popen(
        line, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.readline()
        run.stdout.close()
        assert "standard output can no longer be written (Broken pipe): the command continues" in run.stderr.read()
        assert run.wait(60) == 0
    assert isinstance(read_metrics(tmp_path / "piped" / METRICS_FILE)[-1], RunEnded)
    assert_same_run(tmp_path / "piped", whole)
