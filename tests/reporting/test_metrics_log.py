"""The metrics file of a run: events are read back as they were written, also after a crash."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.reporting.metrics_log import KINDS, METRICS_FILE, MetricsLog, from_line, read_metrics, to_line
from transformer.training.events import (
    AttentionFrame,
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
STEP = StepMetrics(1, 1, 5.5, 244.7, 1e-4, 1.25, 32, 1000.0, 0.1)
EVALUATION = EvalMetrics(1, 1, 5.25, 190.6, 7.5, 100, 0.05)
EPOCH = EpochMetrics(1, 5, 5.1, 164.0, 5.2, 181.3, "checkpoints/model_epoch_1_byte.pt")
END = RunEnded(20, 640, 2.5)
SAMPLE = Sample(1, "Once", " upon\na time é")
INSIDE = InsideMetrics(1, {"induction": [[0.25, 0.5], [1.0, 0.0]]}, {"induction": 0.2}, 5.5, 5.25, 0.01)
ONE_OF_EACH: list[Event] = [START, STEP, EVALUATION, INSIDE, SAMPLE, EPOCH, END]


def write(folder: Path, *events: Event) -> Path:
    log = MetricsLog(folder)
    for event in events:
        log(event)
    return folder / METRICS_FILE


def steps(*numbers: int) -> list[Event]:
    return [replace(STEP, step=number, loss=1 / number) for number in numbers]


def test_every_kind_of_event_is_read_back_equal(tmp_path: Path) -> None:
    assert {type(event) for event in ONE_OF_EACH} == set(KINDS.values())
    assert read_metrics(write(tmp_path / "new" / "folder", *ONE_OF_EACH)) == ONE_OF_EACH


def test_progress_and_frames_of_the_film_are_not_written(tmp_path: Path) -> None:
    frame = AttentionFrame(1, ["a"], 1, 1, "/w==")
    assert read_metrics(write(tmp_path, START, Progress(0, "evaluating", 3, 10), frame, STEP)) == [START, STEP]


def test_each_line_is_an_object_with_its_kind_first(tmp_path: Path) -> None:
    lines = write(tmp_path, *ONE_OF_EACH).read_text(encoding="utf-8").splitlines()
    objects = [json.loads(line) for line in lines]
    assert [values["event"] for values in objects] == [
        "start",
        "step",
        "evaluation",
        "inside",
        "sample",
        "epoch",
        "end",
    ]
    assert all(line.startswith('{"event": ') for line in lines)
    assert {name: value for name, value in objects[1].items() if name != "event"} == asdict(STEP)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nan_and_inf_become_null_and_are_read_as_nan(number: float) -> None:
    """Strict JSON parsers must be able to read the file of a diverged run."""
    line = to_line(replace(STEP, loss=number, perplexity=number))
    assert '"loss": null' in line
    json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    again = from_line(line)
    assert isinstance(again, StepMetrics)
    assert math.isnan(again.loss)
    assert math.isnan(again.perplexity)
    assert replace(again, loss=0.0, perplexity=0.0) == replace(STEP, loss=0.0, perplexity=0.0)


def test_scores_of_a_diverged_run_become_null_and_are_read_as_nan() -> None:
    line = to_line(replace(INSIDE, scores={"induction": [[math.nan, 0.5]]}, even={"induction": math.nan}))
    json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    again = from_line(line)
    assert isinstance(again, InsideMetrics)
    assert math.isnan(again.scores["induction"][0][0])
    assert math.isnan(again.even["induction"])
    assert again.strongest("induction") == (0.5, 0, 1)


@given(
    st.builds(
        EpochMetrics,
        epoch=st.integers(0, 10**9),
        step=st.integers(0, 10**12),
        train_loss=st.floats(allow_nan=False, allow_infinity=False),
        train_perplexity=st.floats(0, 1e300),
        validation_loss=st.floats(0, 20),
        validation_perplexity=st.floats(0, 1e300),
        checkpoint=st.text(),
    )
)
def test_any_event_is_one_line_and_is_read_back_equal(event: EpochMetrics) -> None:
    line = to_line(event)
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert from_line(line) == event


def test_every_event_is_in_the_file_when_the_callback_returns(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    for number, event in enumerate(ONE_OF_EACH, start=1):
        log(event)
        assert read_metrics(log.path) == ONE_OF_EACH[:number]


@pytest.mark.parametrize("lost", [1, 2, 10, 60])
def test_an_incomplete_last_line_is_ignored(tmp_path: Path, lost: int) -> None:
    path = write(tmp_path, START, *steps(1, 2, 3))
    path.write_bytes(path.read_bytes()[:-lost])
    events = read_metrics(path)
    # If only the line end is missing, the last line is still complete.
    assert events == ([START, *steps(1, 2, 3)] if lost == 1 else [START, *steps(1, 2)])


@pytest.mark.parametrize(
    "line",
    [
        "half a li",
        "{}",
        "[]",
        "null",
        "7",
        '{"event": "party"}',
        '{"event": "end", "step": 1}',
        '{"event": "end", "step": 1, "tokens": 2, "seconds": 3, "extra": 4}',
        '{"event": ["end"], "step": 1}',
        "",
    ],
)
def test_a_bad_line_in_the_middle_is_an_error_with_its_number(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, START, *steps(1, 2))
    lines = path.read_text(encoding="utf-8").splitlines()
    lines.insert(2, line)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 3: not a line of metrics")) as caught:
        read_metrics(path)
    assert "\n" not in str(caught.value)


def test_a_bad_complete_last_line_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, START)
    with path.open("a", encoding="utf-8") as file:
        file.write("{}\n")
    with pytest.raises(ValueError, match="line 2"):
        read_metrics(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_metrics(tmp_path / METRICS_FILE)


def test_a_file_that_is_not_text_is_an_error_that_names_it(tmp_path: Path) -> None:
    """`plot model_epoch_1.pt` is a likely mistake."""
    path = tmp_path / "model.pt"
    path.write_bytes(b"PK\x03\x04\x80\xff\xfe" * 20)
    with pytest.raises(ValueError, match="not") as caught:
        read_metrics(path)
    assert str(path) in str(caught.value)


# Resumed runs


def test_a_new_run_begins_a_new_file(tmp_path: Path) -> None:
    write(tmp_path, START, *steps(1, 2), END)
    assert read_metrics(write(tmp_path, START, *steps(1))) == [START, *steps(1)]


def test_a_resumed_run_keeps_the_events_up_to_its_step(tmp_path: Path) -> None:
    """The first process reached step 5 after the state of step 3 was saved; steps 4 and 5 are repeated."""
    write(tmp_path, START, *steps(1, 2, 3), replace(EVALUATION, step=3), *steps(4, 5))
    again = replace(START, step=3)
    path = write(tmp_path, again, *steps(4, 5, 6))
    assert read_metrics(path) == [START, *steps(1, 2, 3), replace(EVALUATION, step=3), again, *steps(4, 5, 6)]


def test_a_resumed_run_removes_an_incomplete_last_line(tmp_path: Path) -> None:
    path = write(tmp_path, START, *steps(1, 2, 3))
    path.write_bytes(path.read_bytes()[:-20])
    again = replace(START, step=2)
    assert read_metrics(write(tmp_path, again, *steps(3))) == [START, *steps(1, 2), again, *steps(3)]


def test_a_resumed_run_without_its_metrics_begins_a_new_file(tmp_path: Path) -> None:
    """For example, only the training state was copied to another machine."""
    again = replace(START, step=2)
    assert read_metrics(write(tmp_path, again, *steps(3))) == [again, *steps(3)]
