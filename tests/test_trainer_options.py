"""Options of a run: reduced precision, activation checkpointing, compilation, samples and progress."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from test_trainer import Recorder, assert_same, numbers, tiny_run, tiny_text, trained, weights
from transformer.config import TrainConfig
from transformer.trainer import Trainer
from transformer.training import checkpoint
from transformer.training.errors import TrainingError
from transformer.training.events import EvalMetrics, Event, Progress, RunEnded, Sample, StepMetrics


def losses(events: list[Event]) -> list[float]:
    return [event.loss for event in events if isinstance(event, StepMetrics)]


def test_activation_checkpointing_changes_nothing_but_memory_dropout_included(tmp_path: Path) -> None:
    settings = {"dropout": 0.2, "num_layers": 2}
    plain, told = trained(tiny_run(tmp_path / "plain", **settings))
    frugal, told_too = trained(tiny_run(tmp_path / "frugal", activation_checkpointing=True, **settings))
    assert_same(weights(plain), weights(frugal))
    assert [numbers(event) for event in told[1:]] == [numbers(event) for event in told_too[1:]]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_run_in_reduced_precision_learns_like_one_in_float32(tmp_path: Path, precision: str) -> None:
    _, wide = trained(tiny_run(tmp_path / "wide", max_steps=15, precision="float32"))
    _, narrow = trained(tiny_run(tmp_path / "narrow", max_steps=15, precision=precision))
    assert losses(narrow) == pytest.approx(losses(wide), rel=0.02)
    assert losses(narrow) != losses(wide)
    assert not any(event.skipped for event in narrow if isinstance(event, StepMetrics))


def test_a_scale_too_large_for_float16_is_halved_until_steps_succeed_and_is_resumed(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, precision="float16", max_steps=8, log_every=1)
    trainer = Trainer(config, tiny_text(config))
    assert trainer.precision.scale is not None
    trainer.precision.scale.fill_(2.0**24)  # gradients of some hundredths then leave float16's range
    before = weights(trainer)
    trainer.train_step()
    assert trainer.report().skipped == 1
    assert_same(before, weights(trainer))
    skipped = 0
    for _ in range(6):
        trainer.train_step()
        skipped += trainer.report().skipped
    assert 0 < skipped < 6
    assert trainer.precision.state()[0] == 2.0 ** (23 - skipped)
    again = Trainer(config, tiny_text(config))
    again.resume(trainer.save_state())
    assert again.precision.state() == trainer.precision.state()


def test_sampling_changes_nothing_about_training(tmp_path: Path) -> None:
    settings = {"dropout": 0.2, "sample_prompt": "the ", "seed": 2}
    silent, _ = trained(tiny_run(tmp_path / "silent", sample_tokens=0, **settings))
    spoken, events = trained(tiny_run(tmp_path / "spoken", sample_tokens=12, **settings))
    assert_same(weights(silent), weights(spoken))
    samples = [event for event in events if isinstance(event, Sample)]
    looks = [event.step for event in events if isinstance(event, EvalMetrics)]
    assert [sample.step for sample in samples] == looks
    assert all(sample.prompt == "the " and len(sample.text) <= 12 for sample in samples)
    assert len({sample.text for sample in samples}) > 1
    told = Recorder()
    again = Trainer(spoken.config, tiny_text(spoken.config), [told])
    again.resume(tmp_path / "spoken" / "training_state_byte.pt")
    again.sample()
    assert told == samples[-1:]


def test_progress_covers_micro_batches_evaluation_and_saving(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, max_steps=3, validation_tokens=200)
    seen: list[Progress] = []
    Trainer(
        config, tiny_text(config), [lambda event: seen.append(event) if isinstance(event, Progress) else None]
    ).fit()
    assert [(phase.step, phase.done, phase.total) for phase in seen if phase.activity == "training"] == [
        (step, micro_batch, 2) for step in range(3) for micro_batch in range(2)
    ]
    rows = [(phase.done, phase.total) for phase in seen if phase.activity == "evaluating"]
    assert rows == [(16, 25), (25, 25)]
    assert {phase.activity for phase in seen} == {"training", "evaluating", "sampling", "saving"}


def test_stopping_cancels_an_evaluation_and_the_resumed_run_repeats_it(tmp_path: Path) -> None:
    whole, expected = trained(tiny_run(tmp_path / "whole"))
    config = tiny_run(tmp_path / "stopped")
    told = Recorder()
    first = Trainer(config, tiny_text(config), [told])

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.activity == "saving" and event.step == 3:
            first.stop()  # the evaluation comes next

    first.callbacks = [told, stop]
    first.fit()
    assert not any(isinstance(event, EvalMetrics) for event in told)
    assert isinstance(told[-1], RunEnded)
    assert told[-1].stopped
    later = Recorder()
    second = Trainer(config, tiny_text(config), [later])
    second.resume(tmp_path / "stopped" / "training_state_byte.pt")
    assert second.so_far.evaluation_pending
    second.fit()
    assert_same(weights(whole), weights(second))
    kept = [numbers(event) for event in (*told[:-1], *later[1:])]
    assert kept[1:] == [numbers(event) for event in expected][1:]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("vocab_size", [257, 9_000])
def test_a_compiled_run_learns_what_a_plain_one_learns(tmp_path: Path, vocab_size: int) -> None:
    """9,000 entries are beyond TILED_FROM_VOCAB: there the loss is one operation to the compiler."""

    def run(folder: str, **settings: object) -> tuple[Trainer, list[Event]]:
        # Without samples: the bytes of the text have no name for most of the ids that it might write.
        shape = {"vocab_size": vocab_size, "num_layers": 2, "sample_tokens": 0, "precision": "float32"}
        return trained(tiny_run(tmp_path / folder, max_steps=6, **shape, **settings))

    plain, told = run("plain")
    fast, told_too = run("compiled", compile=True)
    assert losses(told_too) == pytest.approx(losses(told), rel=1e-5)
    for name, value in weights(plain).items():
        if not name.endswith("qkv.bias"):  # the keys' bias has a gradient of rounding noise alone
            torch.testing.assert_close(weights(fast)[name], value, rtol=1e-3, atol=1e-5, msg=name)
    assert checkpoint.load(tmp_path / "compiled" / "training_state_byte.pt")["model"].keys() == weights(plain).keys()


def test_a_machine_that_cannot_compile_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config: TrainConfig = dataclasses.replace(tiny_run(tmp_path), compile=True)
    trainer = Trainer(config, tiny_text(config))

    def without_a_compiler(**_: object) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("No working C++ compiler found\nand much more")

        trainer.objective.forward = fail  # type: ignore[method-assign]

    monkeypatch.setattr(trainer.objective, "compile", without_a_compiler)
    with pytest.raises(TrainingError, match=r"^torch.compile fails on this machine: No working .* found; leave out --"):
        trainer.train_step()


def test_a_model_with_nan_weights_ends_with_the_reason_and_not_in_its_sample(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, max_steps=15, eval_every=1, log_every=1)
    told = Recorder()
    trainer = Trainer(config, tiny_text(config), [told])
    torch.nn.init.constant_(trainer.model.final_norm.weight, torch.nan)
    with pytest.raises(TrainingError, match="10 steps in a row"):
        trainer.fit()
    steps = [event for event in told if isinstance(event, StepMetrics)]
    assert all(event.skipped == 1 and event.loss != event.loss for event in steps)  # nan: nothing was measured
    assert trainer.so_far.train_points == []
    assert not any(isinstance(event, Sample) for event in told)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_run_with_dropout_learns_as_well(tmp_path: Path) -> None:
    """The CPU's own draws of dropout cannot be compiled: a compiled run with dropout once ended at its first step."""
    settings = {"dropout": 0.2, "position": "alibi", "mask_documents": True, "activation_checkpointing": True}
    _, told = trained(tiny_run(tmp_path / "plain", max_steps=12, **settings))
    _, told_too = trained(tiny_run(tmp_path / "compiled", max_steps=12, compile=True, **settings))
    assert losses(told_too) == pytest.approx(losses(told), rel=0.05)
    assert losses(told_too)[-1] < losses(told_too)[0]
