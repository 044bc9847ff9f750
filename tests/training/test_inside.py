"""--watch-inside measures at early steps and evaluations, and the training does not notice."""

from __future__ import annotations

import base64
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from test_trainer import Recorder, assert_same, numbers, tiny_run, tiny_text, trained, weights
from transformer.config import ConfigError, TrainConfig
from transformer.interpret.heads import HABITS
from transformer.interpret.report_values import pack
from transformer.reporting.film_log import FILM_FILE, FilmLog, read_film, to_line
from transformer.trainer import Trainer
from transformer.training.events import (
    AttentionFrame,
    EvalMetrics,
    Event,
    InsideMetrics,
    Progress,
    RunStarted,
    StepMetrics,
)

SHAPE: dict[str, Any] = {"dropout": 0.2, "num_layers": 2, "max_steps": 9, "eval_every": 3, "epochs": 2}
"""Evaluations at steps 3, 5 (the end of an epoch), 6 and 9."""
MEASURED = [0, 1, 2, 3, 4, 5, 6, 8, 9]


def watched(folder: Path, **settings: Any) -> TrainConfig:
    return tiny_run(folder, watch_inside=True, **{**SHAPE, **settings})


def inside(events: list[Event]) -> list[InsideMetrics]:
    return [event for event in events if isinstance(event, InsideMetrics)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, list[Event]]:
    """A watched run that was never stopped, and its events."""
    torch.manual_seed(0)
    return trained(watched(tmp_path_factory.mktemp("whole")))


def test_training_with_and_without_it_gives_the_same_weights_and_losses(
    tmp_path: Path, whole: tuple[Trainer, list[Event]]
) -> None:
    """With dropout, so that a random number drawn by a measurement would show."""
    plain, expected = trained(tiny_run(tmp_path / "plain", **SHAPE))
    trainer, events = whole
    assert_same(weights(plain), weights(trainer))
    kinds = (StepMetrics, EvalMetrics)
    assert [numbers(e) for e in events if isinstance(e, kinds)] == [
        numbers(e) for e in expected if isinstance(e, kinds)
    ]
    assert not inside(expected)


def test_it_measures_at_step_0_at_powers_of_two_and_at_each_evaluation(whole: tuple[Trainer, list[Event]]) -> None:
    _, events = whole
    found = inside(events)
    assert [event.step for event in found] == MEASURED
    assert [event.step for event in events if isinstance(event, AttentionFrame)] == MEASURED
    for event in found:
        assert list(event.scores) == list(event.even) == list(HABITS)
        assert all((len(layers), len(layers[0])) == (2, 2) for layers in event.scores.values())
    assert found[0].first_loss == pytest.approx(math.log(257), abs=0.1)
    for name in HABITS:  # fresh weights attend almost evenly
        assert found[0].strongest(name)[0] == pytest.approx(found[0].even[name], abs=0.02)


@pytest.mark.parametrize("stop", [4, 6])
def test_a_resumed_run_measures_what_one_that_never_stopped_measures(
    tmp_path: Path, stop: int, whole: tuple[Trainer, list[Event]]
) -> None:
    """The last saved state is that of step 3 or 5, just before its evaluation."""
    uninterrupted, expected = whole
    config = watched(tmp_path / "stopped")

    def crash(event: Event) -> None:
        if isinstance(event, StepMetrics | Progress) and event.step == stop:
            raise KeyboardInterrupt

    events = Recorder()
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, tiny_text(config), [events, crash]).fit()
    resumed = Trainer(config, tiny_text(config), [later := Recorder()])
    resumed.resume(tmp_path / "stopped" / "training_state_byte.pt")
    saved = resumed.step
    resumed.fit()
    assert_same(weights(uninterrupted), weights(resumed))
    kept = [event for event in inside(events) if event.step < saved]
    assert [numbers(e) for e in (*kept, *inside(later))] == [numbers(e) for e in inside(expected)]


def test_rows_of_three_tokens_are_too_short_for_anything_to_be_said_twice(tmp_path: Path) -> None:
    config = dataclasses.replace(watched(tmp_path), data=dataclasses.replace(watched(tmp_path).data, seq_length=3))
    with pytest.raises(ConfigError, match="watch_inside needs rows of at least 4 tokens; seq_length=3"):
        config.check()


def test_a_frame_holds_the_weights_of_each_query_up_to_itself_in_bytes() -> None:
    weights = torch.tensor([[[[1.0, 0.0], [0.25, 0.75]]]])
    assert list(base64.b64decode(pack(torch.cat([weights, weights]), bits=8))) == [255, 64, 191] * 2


def test_the_film_shows_the_same_text_twice(whole: tuple[Trainer, list[Event]]) -> None:
    _, events = whole
    (first, *_) = [event for event in events if isinstance(event, AttentionFrame)]
    assert len(first.tokens) == 8
    assert first.tokens[:4] == first.tokens[4:]
    assert (first.layers, first.heads) == (2, 2)
    assert len(base64.b64decode(first.weights)) == 2 * 2 * 8 * 9 // 2


# The film's file


def frame(step: int, weights: str = "AAAA") -> AttentionFrame:
    return AttentionFrame(step, ["a", "b"], 1, 1, weights)


def test_a_new_run_begins_a_new_film_and_a_resumed_one_keeps_the_frames_up_to_its_step(tmp_path: Path) -> None:
    start = RunStarted("run", 0, 20, 5, 32, 1000, "cpu")
    log = FilmLog(tmp_path)
    log(start)
    assert not (tmp_path / FILM_FILE).exists()
    for step in (0, 1, 2, 4):
        log(frame(step))
    log(dataclasses.replace(start, step=2))
    assert [found.step for found in read_film(log.path)] == [0, 1, 2]
    log(frame(2, "BBBB"))
    assert [found.weights for found in read_film(log.path)] == ["AAAA", "AAAA", "BBBB"]
    log(start)
    assert read_film(log.path) == []


def test_a_line_that_a_crash_damaged_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / FILM_FILE
    path.write_text(to_line(frame(0)) + to_line(frame(1))[:-9] + "\n" + "[]\n" + '{"step": 3}\n', encoding="utf-8")
    assert read_film(path) == [frame(0)]
