"""The values that trackers receive; a failing tracker does not stop the run."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from transformer.config import TrainConfig
from transformer.reporting.trackers import TRACKERS, Tracking, check_installed, remembered_id
from transformer.training.events import (
    EpochMetrics,
    EvalMetrics,
    Event,
    InsideMetrics,
    Progress,
    RunEnded,
    RunStarted,
    Sample,
    StepMetrics,
)

START = RunStarted("checkpoints", 0, 20, 5, 32, 1000, "cpu")
STEP = StepMetrics(1, 1, 5.5, 244.7, 1e-4, 1.25, 32, 1000.0, 0.1, skipped=2, memory_bytes=64)
EVALUATION = EvalMetrics(5, 1, 5.25, 190.6, 7.5, 100, 0.05)
EPOCH = EpochMetrics(1, 5, 5.1, 164.0, 5.2, 181.3, "m.pt", "learning", "both fall")
END = RunEnded(20, 640, 2.5)
SETTINGS = {"epochs": 2, "max_steps": None, "model": {"d_model": 64, "bias": True, "norm": "layernorm"}}


class Recorder:
    """A tracker that records its calls, and fails from a given step on."""

    fails_at = sys.maxsize

    def __init__(self, folder: Path) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def start(self, run: str, step: int, settings: Mapping[str, Any]) -> None:
        self.calls.append(("start", run, step, settings))

    def log(self, values: Mapping[str, float], step: int) -> None:
        if step >= self.fails_at:
            raise ConnectionError("the service\nis gone")
        self.calls.append(("log", values, step))

    def text(self, name: str, text: str, step: int) -> None:
        self.calls.append(("text", name, text, step))

    def finish(self) -> None:
        self.calls.append(("finish",))


class Broken(Recorder):
    fails_at = 3


def emit(observer: Tracking, *events: Any) -> None:
    for event in events:
        observer(event)


def steps(*numbers: int, loss: float = 5.0) -> list[Event]:
    return [replace(STEP, step=number, loss=loss + number) for number in numbers]


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(point.step, point.value) for point in events.Scalars(name)]


def test_each_event_becomes_numbers_or_text_at_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRACKERS, "recorder", Recorder)
    tracking = Tracking(["recorder"], tmp_path, SETTINGS)
    inside = InsideMetrics(5, {"induction": [[0.25, 0.5]]}, {"induction": 0.125}, 5.5, 5.25)
    emit(tracking, START, STEP, EVALUATION, inside, Sample(5, "Once ", "upon"), Progress(5, "saving"), EPOCH, END)
    recorder = tracking.trackers["recorder"]
    assert isinstance(recorder, Recorder)
    numbers = {
        "loss/train": 5.5, "perplexity/train": 244.7, "learning_rate": 1e-4, "gradient_norm": 1.25,
        "tokens_per_second": 1000.0, "skipped": 2, "memory_bytes": 64,
    }  # fmt: skip
    assert recorder.calls == [
        ("start", "checkpoints", 0, SETTINGS),
        ("log", numbers, 1),
        ("log", {"loss/validation": 5.25, "perplexity/validation": 190.6, "bits_per_byte": 7.5}, 5),
        ("log", {"inside/induction": 0.5, "inside/loss_first_half": 5.5, "inside/loss_second_half": 5.25}, 5),
        ("text", "sample", "Once upon", 5),
        ("text", "verdict", "epoch 1: learning: both fall", 5),
        ("finish",),
    ]


# Failures


def test_a_tracker_that_fails_is_reported_once_and_the_others_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRACKERS, "broken", Broken)
    monkeypatch.setitem(TRACKERS, "recorder", Recorder)
    lines: list[str] = []
    tracking = Tracking(["broken", "recorder"], tmp_path, SETTINGS, lines.append)
    emit(tracking, START, *steps(1, 2, 3, 4), END)
    assert lines == [
        "the tracker broken failed and is no longer used; the run continues (ConnectionError: the service is gone)"
    ]
    recorder = tracking.trackers["recorder"]
    assert isinstance(recorder, Recorder)
    assert [call[0] for call in recorder.calls] == ["start", "log", "log", "log", "log", "finish"]


def test_event_files_that_cannot_be_written_do_not_stop_a_run(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    lines: list[str] = []
    emit(Tracking(["tensorboard"], tmp_path, SETTINGS, lines.append), START, *steps(1, 2), END)
    assert len(lines) == 1
    assert "tensorboard failed" in lines[0]
    assert "FileExistsError" in lines[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
def test_a_full_disk_stops_the_curve_but_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SummaryWriter writes in a thread, which also prints its traceback; the run continues."""
    failed: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda error: failed.append(error.exc_type.__name__))
    lines: list[str] = []
    tracking = Tracking(["tensorboard"], tmp_path, SETTINGS, lines.append)
    emit(tracking, START, *steps(1))
    (events,) = (tmp_path / "tensorboard").iterdir()
    events.unlink()
    events.symlink_to("/dev/full")
    emit(tracking, *steps(2, 3), END)
    assert len(lines) == 1
    assert "No space left on device" in lines[0]
    deadline = time.monotonic() + 30
    while not failed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert failed == ["OSError"]


def test_a_missing_library_is_an_error_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # Python treats the module as impossible to import
    check_installed(["tensorboard"])
    with pytest.raises(ValueError, match="wandb is not installed") as caught:
        check_installed(["tensorboard", "wandb"])
    assert "`uv pip install --no-config 'wandb>=0.19'`" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_a_folder_called_wandb_is_not_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library writes a folder of that name, which Python finds as a namespace package."""
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="wandb is not installed"):
        check_installed(["wandb"])


def test_the_setting_accepts_exactly_the_existing_trackers() -> None:
    (names, _) = get_args(get_type_hints(TrainConfig)["trackers"])
    assert list(get_args(names)) == list(TRACKERS)


# TensorBoard, read back with its own reader


def test_tensorboard_reads_every_number_and_text_back(tmp_path: Path) -> None:
    emit(
        Tracking(["tensorboard"], tmp_path, SETTINGS),
        START,
        *steps(1, 2),
        EVALUATION,
        EPOCH,
        Sample(5, "a *b*\n", "c"),
        END,
    )
    assert curve(tmp_path, "loss/train") == [(1, 6.0), (2, 7.0)]
    assert curve(tmp_path, "gradient_norm") == [(1, 1.25), (2, 1.25)]
    assert curve(tmp_path, "skipped") == [(1, 2.0), (2, 2.0)]
    assert curve(tmp_path, "learning_rate") == [(1, pytest.approx(1e-4)), (2, pytest.approx(1e-4))]
    assert curve(tmp_path, "loss/validation") == [(5, 5.25)]
    assert curve(tmp_path, "bits_per_byte") == [(5, 7.5)]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    texts = {name: events.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val for name in ("verdict", "sample")}
    assert texts == {"verdict": [b"    epoch 1: learning: both fall\n"], "sample": [b"    a *b*\n    c\n"]}
    stored = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    for name in (b"epochs", b"max_steps", b"model.d_model", b"model.norm", b"layernorm"):
        assert name in stored


def test_every_point_is_in_the_file_when_log_returns(tmp_path: Path) -> None:
    """A killed run keeps its curves."""
    tracking = Tracking(["tensorboard"], tmp_path, SETTINGS)
    emit(tracking, START)
    for number, step in enumerate(steps(1, 2, 3), start=1):
        emit(tracking, step)
        assert len(curve(tmp_path, "loss/train")) == number


@pytest.mark.parametrize("kept", [0, 3])
def test_a_resumed_run_replaces_the_later_points_of_an_earlier_process(kept: int, tmp_path: Path) -> None:
    """At step 0, the earlier process was killed before it saved a state."""
    emit(Tracking(["tensorboard"], tmp_path, SETTINGS), START, *steps(1, 2, 3, 4, 5))
    again = Tracking(["tensorboard"], tmp_path, SETTINGS)
    emit(again, replace(START, step=kept), *steps(4, loss=50.0))
    before = [(1, 6.0), (2, 7.0), (3, 8.0)][:kept]
    assert curve(tmp_path, "loss/train") == [*before, (4, 54.0)]


def test_a_resumed_run_writes_a_file_of_its_own(tmp_path: Path) -> None:
    """The file of a killed process may end within a record; records after it would not be read."""
    emit(Tracking(["tensorboard"], tmp_path, SETTINGS), START, *steps(1, 2, 3))
    (events,) = (tmp_path / "tensorboard").iterdir()
    cut_short = events.with_name("events.out.tfevents.1000000000.here.1")
    cut_short.write_bytes(events.read_bytes()[:-20])
    events.unlink()
    emit(Tracking(["tensorboard"], tmp_path, SETTINGS), replace(START, step=2), *steps(3, 4))
    assert [step for step, _ in curve(tmp_path, "loss/train")] == [1, 2, 3, 4]


# Services with run ids: Weights & Biases, trackio


def test_a_new_run_gets_a_new_id_and_a_resumed_run_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "id.txt"
    first = remembered_id(path, is_new=True)
    assert remembered_id(path, is_new=False) == first
    second = remembered_id(path, is_new=True)
    assert second != first
    path.unlink()
    assert remembered_id(path, is_new=False) not in (first, second)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_run_and_its_resumption_are_stored_without_a_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed, and is not a development dependency")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    lines: list[str] = []
    for start, numbers in [(START, (1, 2, 3)), (replace(START, step=2), (3, 4))]:
        tracking = Tracking([name], tmp_path / "run", SETTINGS, lines.append)
        emit(tracking, start, *steps(*numbers), EVALUATION, EPOCH, Sample(5, "Once ", "<upon>"), END)
    assert lines == []
    identity = (tmp_path / "run" / f"{name}_id.txt").read_text()
    if name == "wandb":
        runs = [path.name for path in (tmp_path / "run" / "wandb").glob("offline-run-*")]
        assert [run.endswith(identity) for run in runs] == [True, True]
    else:
        from trackio import Api

        (run,) = Api().runs("transformer")
        assert run.name == f"checkpoints-{identity}"
    shutil.rmtree(tmp_path / "run")
