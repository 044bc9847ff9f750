"""The trainer learns, emits events, and resumes a stopped run exactly where it was."""

from __future__ import annotations

import copy
import dataclasses
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from transformer.config import IGNORE, ConfigError, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from transformer.data.contracts import TextData
from transformer.data.open import open_dataset, text_data
from transformer.dataset import TokenDocuments
from transformer.distributed.processes import Dist
from transformer.perplexity import evaluate_perplexity
from transformer.processor import choices, processor, row
from transformer.reporting.metrics_log import METRICS_FILE, MetricsLog, read_metrics
from transformer.text import ByteTokenizer
from transformer.trainer import Trainer
from transformer.training import checkpoint
from transformer.training.checkpoint import CheckpointError
from transformer.training.errors import TrainingError
from transformer.training.events import (
    EpochMetrics,
    EvalMetrics,
    Event,
    Progress,
    RunEnded,
    RunStarted,
    Sample,
    StepMetrics,
)
from transformer.training_utils import Objective

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "two", "red", "hens", "run", "up", "the", "hill"]
TIMES = {"seconds", "tokens_per_second", "memory_bytes", "checkpoint"}
"""Fields that may differ between two equal runs."""


def story(documents: int = 24, words: int = 20) -> list[str]:
    """Returns short texts of few words, the same every time."""
    chance = random.Random(0)
    return [" ".join(chance.choices(WORDS, k=words)) + "." for _ in range(documents)]


def tiny_run(folder: Path, **settings: Any) -> TrainConfig:
    """Returns a run of 3 epochs of 5 steps of 2 micro-batches of 2 rows of 8 tokens; names may be of any group."""
    model = {"vocab_size": 257, "d_model": 16, "num_heads": 2, "num_layers": 1, "d_ff": 32, "max_seq_len": 8}
    data = {"encoding": "byte", "seq_length": 8, "tokens_per_epoch": 5 * 32, "validation_tokens": 100}
    run = {"epochs": 3, "batch_size": 2, "accumulation_steps": 2, "eval_every": 3, "log_every": 2}
    groups: list[tuple[type, dict[str, Any]]] = [
        (ModelConfig, {"dropout": 0.0, **model}),
        (DataConfig, {"shuffle_rows": 16, **data}),
        (OptimizerConfig, {"learning_rate": 1e-2}),
        (TrainConfig, {"checkpoint_dir": str(folder), "device": "cpu", **run}),
    ]
    for cls, values in groups:
        values.update({f.name: settings.pop(f.name) for f in dataclasses.fields(cls) if f.name in settings})
    assert not settings, f"no such setting: {settings}"
    (_, m), (_, d), (_, o), (_, t) = groups
    return TrainConfig(model=ModelConfig(**m), data=DataConfig(**d), optimizer=OptimizerConfig(**o), **t)


def tiny_text(config: TrainConfig) -> TextData:
    """Returns the story as bytes, a third of it held out."""
    tokenizer = ByteTokenizer()
    documents = tokenizer.encode_batch(story())
    train = TokenDocuments(documents[8:], tokenizer.eot_id)
    held_out = TokenDocuments(documents[:8], tokenizer.eot_id)
    return text_data(config.data, tokenizer, train, config.data.tokens_per_epoch, iter(held_out))


class Recorder(list[Event]):
    """A callback that keeps every event except Progress."""

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Progress):
            self.append(event)


def trained(config: TrainConfig) -> tuple[Trainer, list[Event]]:
    """Returns the trainer after fit(), and the events that it emitted."""
    events = Recorder()
    trainer = Trainer(config, tiny_text(config), [events])
    trainer.fit()
    return trainer, events


def numbers(event: Event) -> dict[str, Any]:
    """Returns the event without the wall clock and the folder."""
    values = {name: value for name, value in dataclasses.asdict(event).items() if name not in TIMES}
    return {"kind": type(event).__name__, **values}


def assert_same(left: object, right: object, where: str = "") -> None:
    """Compares nested dicts and lists of tensors and values, bit for bit."""
    if isinstance(left, Tensor):
        assert isinstance(right, Tensor), where
        torch.testing.assert_close(left, right, rtol=0, atol=0, msg=lambda text: f"{where}: {text}")
    elif isinstance(left, dict):
        assert isinstance(right, dict), where
        assert left.keys() == right.keys(), where
        for key in left:
            assert_same(left[key], right[key], f"{where}/{key}")
    elif isinstance(left, list | tuple):
        assert isinstance(right, list | tuple), where
        assert len(left) == len(right), where
        for number, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same(one, other, f"{where}/{number}")
    else:
        assert left == right, where


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


# Learning


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_learns(tmp_path: Path, optimizer: str) -> None:
    config = tiny_run(tmp_path, optimizer=optimizer, epochs=12, tokens_per_epoch=320, log_every=10, eval_every=1000)
    _, events = trained(config)
    looks = [event for event in events if isinstance(event, EvalMetrics)]
    losses = [event.loss for event in events if isinstance(event, StepMetrics)]
    assert losses[-1] < 0.55 * math.log(257)
    assert looks[-1].loss < 0.55 * math.log(257)
    assert looks[-1].loss < looks[0].loss
    assert looks[-1].bits_per_byte == pytest.approx(looks[-1].loss / math.log(2), rel=0.05)  # a token is a byte here


def test_the_first_loss_is_about_the_logarithm_of_the_vocabulary(tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    trainer = Trainer(config, tiny_text(config))
    assert trainer.evaluate().loss == pytest.approx(math.log(257), abs=0.1)
    trainer.train_step()
    first = trainer.report()
    assert first.loss == pytest.approx(math.log(257), abs=0.1)
    assert first.perplexity == pytest.approx(math.exp(first.loss))


def test_the_first_step_of_the_warm_up_moves_the_weights(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, warmup_fraction=0.4, learning_rate=6e-3, weight_decay=0.0)
    trainer = Trainer(config, tiny_text(config))
    before = weights(trainer)
    trainer.train_step()
    assert trainer.report().learning_rate == pytest.approx(6e-3 / 6)  # 0.4 of 15 steps: the first of 6
    moved = [(weights(trainer)[name] - value).abs().max().item() for name, value in before.items()]
    assert all(distance > 0 for distance in moved)
    assert max(moved) == pytest.approx(1e-3, rel=0.05)  # AdamW's first step is as long as the rate


def test_the_last_step_takes_the_lowest_rate_and_still_moves(tmp_path: Path) -> None:
    _, events = trained(tiny_run(tmp_path, learning_rate=1e-2, min_lr_ratio=0.2))
    rates = [event.learning_rate for event in events if isinstance(event, StepMetrics)]
    assert rates == sorted(rates, reverse=True)  # 0.02 of 15 steps are no warm-up
    assert 2e-3 <= rates[-1] < 2.2e-3


def test_gradients_are_cleared_after_a_step(tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    trainer = Trainer(config, tiny_text(config))
    trainer.train_step()
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_a_gradient_above_grad_clip_is_scaled_down_and_reported_unclipped(tmp_path: Path) -> None:
    """SGD in AdamW's place: the step is the clipped gradient itself."""
    config = tiny_run(tmp_path, grad_clip=0.01)
    trainer = Trainer(config, tiny_text(config))
    sgd = torch.optim.SGD(trainer.model.parameters(), lr=1.0)
    sgd.param_groups[0]["peak_lr"] = 1.0
    trainer.optimizers = [sgd]
    before = weights(trainer)
    trainer.train_step()
    report = trainer.report()
    named = dict(trainer.model.named_parameters())
    distance = torch.stack([(named[name] - before[name]).norm() for name in named]).norm().item()
    assert report.grad_norm > 0.1
    assert distance == pytest.approx(0.01 * report.learning_rate, rel=1e-3)


def test_two_accumulated_halves_equal_one_whole_batch(tmp_path: Path) -> None:
    whole = tiny_run(tmp_path / "whole", batch_size=4, accumulation_steps=1, dropout=0.0, precision="float32")
    halves = dataclasses.replace(whole, batch_size=2, accumulation_steps=2)
    runs = [Trainer(config, tiny_text(config)) for config in (whole, halves)]
    seen: list[list[Tensor]] = [[], []]
    for rows, run in zip(seen, runs, strict=True):
        run.objective.register_forward_pre_hook(lambda _, batch, rows=rows: rows.append(batch[0]))
    for _ in range(5):
        for run in runs:
            run.train_step()
    torch.testing.assert_close(torch.cat(seen[0]), torch.cat(seen[1]))
    reports = [run.report() for run in runs]
    assert reports[0].loss == pytest.approx(reports[1].loss, rel=1e-5)
    assert reports[0].grad_norm == pytest.approx(reports[1].grad_norm, rel=1e-4)
    assert reports[0].tokens == reports[1].tokens == 5 * 32
    ours, theirs = map(weights, runs)
    for name, value in ours.items():
        other = theirs[name]
        if name.endswith("qkv.bias"):
            # A bias of the keys adds the same to all scores of a query, which softmax takes out again: its gradient is
            # rounding noise, and AdamW makes steps of full size of any noise.
            value, other = (torch.cat([bias[:16], bias[32:]]) for bias in (value, other))
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-6, msg=name)


def test_every_token_of_the_step_has_the_same_weight(tmp_path: Path) -> None:
    """The gradient of a step is that of the mean over all its tokens, by plain autograd on all rows at once."""
    config = tiny_run(tmp_path, grad_clip=0.0, precision="float32")
    trainer, other = (Trainer(config, tiny_text(config)) for _ in range(2))
    rows = [next(other.batches)[:2] for _ in range(2)]
    tokens, targets = (torch.cat(parts) for parts in zip(*rows, strict=True))
    logits = other.model(tokens)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    expected = torch.stack([p.grad.norm() for p in other.model.parameters() if p.grad is not None]).norm()
    trainer.train_step()
    assert trainer.report().grad_norm == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("mask_documents", [False, True])
def test_documents_are_masked_in_training_and_validation_if_configured(tmp_path: Path, mask_documents: bool) -> None:
    shape = {"seq_length": 64, "max_seq_len": 64, "validation_tokens": 600}
    config = tiny_run(tmp_path, mask_documents=mask_documents, precision="float32", **shape)
    trainer = Trainer(config, tiny_text(config))
    for parameter in trainer.model.parameters():  # large weights, so that what is attended to shows
        torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(0))
    ends = (ByteTokenizer.eot_id, None)
    masked, plain = (evaluate_perplexity(trainer.model, *trainer.data.validation, end_of_text=end) for end in ends)
    assert masked.loss != pytest.approx(plain.loss, rel=1e-4)
    assert trainer.evaluate().loss == pytest.approx((masked if mask_documents else plain).loss, rel=1e-6)

    model, seen = copy.deepcopy(trainer.model), []
    trainer.objective.register_forward_pre_hook(lambda _, batch: seen.append(batch))
    trainer.train_step()
    tokens, targets = (torch.cat(parts) for parts in zip(*seen, strict=True))
    masked_nats, plain_nats = (Objective(model, end)(tokens, targets)[0].item() for end in ends)
    assert masked_nats != pytest.approx(plain_nats, rel=1e-4)
    expected = (masked_nats if mask_documents else plain_nats) / tokens.numel()
    assert trainer.report().loss == pytest.approx(expected, rel=1e-5)


# Events


def test_fit_emits_events_in_order(tmp_path: Path) -> None:
    """5 steps per epoch, a log line every 2 steps, an evaluation every 3."""
    _, events = trained(tiny_run(tmp_path, epochs=2))
    told = [(type(event), event.step) for event in events]
    evaluations = [event for event in told if event[0] is not StepMetrics]
    assert evaluations == [
        (RunStarted, 0),
        (EvalMetrics, 3),
        (Sample, 3),
        (EvalMetrics, 5),
        (Sample, 5),
        (EpochMetrics, 5),
        (EvalMetrics, 6),
        (Sample, 6),
        (EvalMetrics, 9),
        (Sample, 9),
        (EvalMetrics, 10),
        (Sample, 10),
        (EpochMetrics, 10),
        (RunEnded, 10),
    ]
    steps = [event for event in told if event[0] is StepMetrics]
    assert {(StepMetrics, step) for step in (2, 4, 6, 8, 10)} <= set(steps)
    assert [step for _, step in told] == sorted(step for _, step in told)
    assert told.index((StepMetrics, 6)) < told.index((EvalMetrics, 6))
    epochs = [event.epoch for event in events if isinstance(event, StepMetrics) and event.step in (2, 4, 6, 8, 10)]
    assert epochs == [1, 1, 2, 2, 2]


def test_the_start_event_describes_the_run(tmp_path: Path) -> None:
    trainer, events = trained(tiny_run(tmp_path / "run"))
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    here = processor()
    assert events[0] == RunStarted(
        "run", 0, 15, 5, 32, parameters, "cpu", precision=choices().training,
        processor=here.name, processor_kind=here.kind, kernels_chosen=row(),
    )  # fmt: skip
    assert isinstance(events[-1], RunEnded)
    assert events[-1].tokens == 15 * 32
    assert events[-1].seconds > 0


def test_every_step_is_in_exactly_one_step_event(tmp_path: Path) -> None:
    """The end of an epoch once dropped the numbers of the steps since the last log line.

    With 5 steps an epoch and a line every 2, step 5 was in no line: line 6 held the loss of step 6 alone.
    """
    _, every = trained(tiny_run(tmp_path / "every", log_every=1))
    _, seldom = trained(tiny_run(tmp_path / "seldom", log_every=2))
    losses = [event.loss for event in every if isinstance(event, StepMetrics)]
    last = 0
    for event in seldom:
        if isinstance(event, StepMetrics):
            mean = sum(losses[last : event.step]) / (event.step - last)
            assert event.loss == pytest.approx(mean, rel=1e-5), f"steps {last + 1} to {event.step}"
            last = event.step
    assert last == 15


def test_an_epochs_train_loss_is_the_mean_over_its_steps(tmp_path: Path) -> None:
    _, every = trained(tiny_run(tmp_path / "every", log_every=1))
    _, seldom = trained(tiny_run(tmp_path / "seldom", log_every=4))
    losses = [event.loss for event in every if isinstance(event, StepMetrics)]
    assert len(losses) == 15
    for events in (every, seldom):
        epochs = [event for event in events if isinstance(event, EpochMetrics)]
        assert [event.epoch for event in epochs] == [1, 2, 3]
        for number, epoch in enumerate(epochs):
            assert epoch.train_loss == pytest.approx(sum(losses[5 * number : 5 * number + 5]) / 5, rel=1e-5)
            assert epoch.train_perplexity == pytest.approx(math.exp(epoch.train_loss))
            assert epoch.validation_perplexity == pytest.approx(math.exp(epoch.validation_loss))


def test_an_epochs_evaluation_is_the_checkpoints_score(tmp_path: Path) -> None:
    trainer, events = trained(tiny_run(tmp_path))
    last = [event for event in events if isinstance(event, EpochMetrics)][-1]
    contents = checkpoint.load(Path(last.checkpoint))
    assert contents["metrics"]["validation_loss"] == last.validation_loss == trainer.evaluate().loss
    assert (contents["step"], contents["epoch"], contents["tokens"]) == (15, 3, 480)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_cadence_of_evaluating_logging_and_saving_changes_nothing_about_the_weights(
    tmp_path: Path, optimizer: str
) -> None:
    runs = []
    for number, (looks, logs, minutes) in enumerate([(1, 1, 10.0), (4, 3, 1e-9), (1000, 1000, 10.0)]):
        cadence = {"eval_every": looks, "log_every": logs, "save_every_minutes": minutes}
        config = tiny_run(tmp_path / str(number), optimizer=optimizer, dropout=0.2, **cadence)
        runs.append(trained(config)[0])
    for other in runs[1:]:
        assert_same(weights(runs[0]), weights(other))
        for ours, theirs in zip(runs[0].optimizers, other.optimizers, strict=True):
            assert_same(ours.state_dict(), theirs.state_dict())


def test_evaluating_changes_nothing_about_training(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, dropout=0.2)
    trainer = Trainer(config, tiny_text(config))
    trainer.train_step()
    random_state, before = torch.get_rng_state(), weights(trainer)
    assert trainer.model.training
    first, second = trainer.evaluate(), trainer.evaluate()
    assert numbers(first) == numbers(second)
    assert trainer.model.training
    assert_same(before, weights(trainer))
    assert_same(random_state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


# Length


def test_a_run_has_whole_epochs_of_whole_steps(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, tokens_per_epoch=5 * 32 + 31)
    trainer = Trainer(config, tiny_text(config))
    assert (trainer.steps_per_epoch, trainer.total_steps) == (5, 15)
    seen = []
    for step in range(1, 12):
        trainer.train_step()
        seen.append((step, trainer.epoch))
    assert [epoch for _, epoch in seen] == [1] * 5 + [2] * 5 + [3]


def test_an_epoch_shorter_than_a_step_is_one_step(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, tokens_per_epoch=9)
    trainer = Trainer(config, tiny_text(config))
    assert (trainer.steps_per_epoch, trainer.total_steps) == (1, 3)


def test_more_processes_take_fewer_steps_for_the_same_text(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, precision="float32")  # auto would ask the other process, which is not there
    trainer = Trainer(config, tiny_text(config), dist=Dist(rank=1, world_size=2))
    assert (trainer.steps_per_epoch, trainer.total_steps) == (2, 6)


def test_max_steps_ends_a_run_in_mid_epoch_with_a_checkpoint(tmp_path: Path) -> None:
    trainer, events = trained(tiny_run(tmp_path, max_steps=7))
    assert trainer.step == 7
    assert [type(event) for event in events[-5:]] == [StepMetrics, EvalMetrics, Sample, EpochMetrics, RunEnded]
    assert {event.step for event in events[-5:]} == {7}
    assert [path.name for path in checkpoint.epochs(tmp_path)] == ["model_epoch_1_byte.pt", "model_epoch_2_byte.pt"]
    assert checkpoint.load(tmp_path / "model_epoch_2_byte.pt")["step"] == 7
    assert checkpoint.load(tmp_path / "training_state_byte.pt")["step"] == 7


def test_max_steps_beyond_the_epochs_changes_nothing(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, max_steps=1000)
    assert Trainer(config, tiny_text(config)).total_steps == 15


def test_every_epoch_leaves_its_own_checkpoint(tmp_path: Path) -> None:
    trained(tiny_run(tmp_path))
    assert [path.name for path in checkpoint.epochs(tmp_path)] == [f"model_epoch_{n}_byte.pt" for n in (1, 2, 3)]
    others = sorted(path.name for path in tmp_path.iterdir() if "model" not in path.name)
    assert others == ["training_state_byte.pt", "training_state_byte_previous.pt"]


def scored(trainer: Trainer, *losses: float) -> list[int]:
    """Lets the trainer end one epoch after another with these validation losses; returns the epochs that are left."""
    for loss in losses:
        trainer.so_far.step += trainer.steps_per_epoch
        trainer.save(EvalMetrics(trainer.step, trainer.epoch, loss, math.exp(loss), loss, 100, 0.0))
    return [int(path.name.split("_")[2]) for path in checkpoint.epochs(trainer.directory)]


def test_keep_last_leaves_the_last_epochs_and_the_best_one(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, keep_last=2, epochs=9)
    trainer = Trainer(config, tiny_text(config))
    assert scored(trainer, 3.0, 2.0, math.nan, 2.5) == [2, 3, 4]
    assert scored(trainer, 2.0, 2.4) == [2, 5, 6]  # of two equal ones the earlier
    assert scored(trainer, 1.9, 2.2, 2.1) == [7, 8, 9]
    assert checkpoint.best(tmp_path).name == "model_epoch_7_byte.pt"


def test_a_resumed_run_knows_which_epochs_are_its_own_and_which_is_the_best(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, keep_last=1, epochs=9)
    first = Trainer(config, tiny_text(config))
    assert scored(first, 2.0, 2.5) == [1, 2]
    foreign = ["model_epoch_0_byte.pt", "model_epoch_1_p50k.pt", "model_epoch_2_byte.pt.bak", "notes.pt"]
    for name in foreign:
        (tmp_path / name).write_bytes(b"mine")
    second = Trainer(config, tiny_text(config))
    second.resume(first.save_state())
    assert scored(second, 2.4, 2.3)[-2:] == [1, 4]
    assert scored(second, 1.0)[-1:] == [5]
    assert not (tmp_path / "model_epoch_1_byte.pt").exists()
    assert all((tmp_path / name).read_bytes() == b"mine" for name in foreign)


def test_a_run_resumed_into_another_folder_removes_nothing_that_it_found_there(tmp_path: Path) -> None:
    """Another run's epochs have the same names."""
    config = tiny_run(tmp_path / "one", keep_last=1, epochs=9)
    first = Trainer(config, tiny_text(config))
    scored(first, 2.0, 2.5)
    other = dataclasses.replace(config, checkpoint_dir=str(tmp_path / "other"))
    scored(Trainer(dataclasses.replace(other, keep_last=0), tiny_text(other)), 1.0, 1.5)
    second = Trainer(other, tiny_text(other))
    second.resume(first.save_state())
    assert scored(second, 2.4, 2.3, 2.2) == [1, 2, 5]


def test_an_epoch_that_cannot_be_saved_costs_no_other(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, keep_last=1, epochs=9)
    trainer = Trainer(config, tiny_text(config))
    scored(trainer, 2.0, 2.5)
    (tmp_path / "model_epoch_3_byte.pt").mkdir()  # in the way
    with pytest.raises(OSError, match="model_epoch_3_byte"):
        scored(trainer, 1.0)
    assert (tmp_path / "model_epoch_1_byte.pt").is_file()
    assert (tmp_path / "model_epoch_2_byte.pt").is_file()


# The verdict


def test_each_epoch_ends_with_a_verdict_and_its_evidence(tmp_path: Path) -> None:
    _, events = trained(tiny_run(tmp_path, eval_every=1, log_every=1))
    last = [event for event in events if isinstance(event, EpochMetrics)][-1]
    assert last.verdict == "learning"
    assert re.match(r"validation falls by \d\.\d+ ± \d\.\d+ per (\d+ )?steps?, train ", last.reason)
    looks = [event for event in events if isinstance(event, EvalMetrics)]
    assert [event.loss_error for event in looks if event.loss_error is not None and not 0 < event.loss_error < 1] == []
    assert looks


def test_early_stopping_ends_a_run_that_no_longer_improves_if_configured(tmp_path: Path) -> None:
    still = {"learning_rate": 1e-9, "eval_every": 1, "log_every": 1}
    trainer, events = trained(tiny_run(tmp_path / "patient", patience=2, **still))
    assert trainer.step < 15
    assert isinstance(events[-1], RunEnded)
    assert (events[-1].early_stopped, events[-1].stopped) == (True, False)
    assert isinstance(events[-2], EpochMetrics)  # what it had come to is kept
    assert Path(events[-2].checkpoint).exists()
    assert trained(tiny_run(tmp_path / "asked", patience=0, **still))[0].step == 15
    assert trained(tiny_run(tmp_path / "learning", patience=2, eval_every=1, log_every=1))[0].step == 15


# Resuming


class Stopped(Exception):  # noqa: N818 (a crash, not an error of the trainer's)
    """Simulates the end of the process."""


def stop_at(when: Callable[[Event], bool]) -> Callable[[Event], None]:
    def observer(event: Event) -> None:
        if when(event):
            raise Stopped

    return observer


STOPS: dict[str, tuple[Callable[[Event], bool], int]] = {
    "between two log lines": (lambda e: isinstance(e, StepMetrics) and e.step == 4, 3),
    "in mid-epoch": (lambda e: isinstance(e, StepMetrics) and e.step == 8, 6),
    "at an epoch's end": (lambda e: isinstance(e, EpochMetrics) and e.epoch == 2, 10),
}
"""When the run stops, and the step of the last state that it saved."""


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("stop", STOPS)
def test_a_resumed_run_equals_one_that_never_stopped_bit_for_bit(
    tmp_path: Path, stop: str, optimizer: str, precision: str
) -> None:
    """In bfloat16, the two micro-batches of a step share autocast's copies of the weights."""
    shape = {"dropout": 0.2, "position": "rotary", "num_layers": 2}
    whole = tiny_run(tmp_path / "whole", optimizer=optimizer, precision=precision, **shape)
    uninterrupted, expected = trained(whole)

    config = dataclasses.replace(whole, checkpoint_dir=str(tmp_path / "stopped"))
    when, saved_step = STOPS[stop]
    with pytest.raises(Stopped):
        Trainer(config, tiny_text(config), [stop_at(when)]).fit()

    torch.manual_seed(12345)  # a new process has another random state
    events = Recorder()
    resumed = Trainer(config, tiny_text(config), [events])
    resumed.resume(tmp_path / "stopped" / "training_state_byte.pt")
    assert resumed.step == saved_step
    resumed.fit()

    assert_same(weights(uninterrupted), weights(resumed))
    for ours, theirs in zip(uninterrupted.optimizers, resumed.optimizers, strict=True):
        assert_same(ours.state_dict(), theirs.state_dict())
    assert uninterrupted.so_far.data == resumed.so_far.data
    later = [numbers(event) for event in expected if event.step > saved_step]
    assert later == [numbers(event) for event in events if event.step > saved_step]
    assert numbers(events[0]) == {
        **numbers(expected[0]),
        "run": "stopped",
        "step": saved_step,
        "evaluation_pending": True,
    }


def test_a_run_resumed_step_by_step_equals_one_that_never_stopped(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, dropout=0.2, max_steps=6)
    whole, _ = trained(config)
    trainer = Trainer(config, tiny_text(config))
    for _ in range(6):
        path = trainer.save_state()
        trainer = Trainer(config, tiny_text(config))
        trainer.resume(path)
        trainer.train_step()
    assert_same(weights(whole), weights(trainer))


def test_document_masks_are_kept_by_the_checkpoint_and_a_resumed_run(tmp_path: Path) -> None:
    shape = {"seq_length": 64, "max_seq_len": 64, "tokens_per_epoch": 1000, "max_steps": 3}
    config = tiny_run(tmp_path, mask_documents=True, **shape)
    whole, _ = trained(config)
    assert checkpoint.load_model(checkpoint.latest(tmp_path)).config.data.mask_documents
    trainer = Trainer(config, tiny_text(config))
    trainer.train_step()
    path = trainer.save_state()
    stored = TrainConfig.from_dict(checkpoint.load(path)["config"])
    assert stored == config
    resumed = Trainer(stored, tiny_text(stored))
    resumed.resume(path)
    for _ in range(2):
        resumed.train_step()
    assert_same(weights(whole), weights(resumed))
    plain, _ = trained(tiny_run(tmp_path / "plain", **shape))
    assert not torch.equal(plain.model.head.weight, whole.model.head.weight)


def test_a_run_killed_while_it_looks_evaluation_pending_and_leaves_the_same_files(tmp_path: Path) -> None:
    """The state is saved before the evaluation, so that a crash in it loses nothing; no event is written twice."""
    whole = tiny_run(tmp_path / "whole")
    Trainer(whole, tiny_text(whole), [MetricsLog(tmp_path / "whole")]).fit()
    for name, when in {
        "before": lambda e: isinstance(e, EvalMetrics) and e.step == 10,
        "after": lambda e: isinstance(e, EpochMetrics) and e.epoch == 2,
    }.items():
        config = dataclasses.replace(whole, checkpoint_dir=str(tmp_path / name))
        log = MetricsLog(tmp_path / name)
        with pytest.raises(Stopped):
            Trainer(config, tiny_text(config), [log, stop_at(when)]).fit()
        resumed = Trainer(config, tiny_text(config), [log])
        resumed.resume(tmp_path / name / "training_state_byte.pt")
        resumed.fit()
        ours, theirs = (
            [
                numbers(event)
                for event in read_metrics(tmp_path / run / METRICS_FILE)
                if not isinstance(event, RunStarted)
            ]
            for run in (name, "whole")
        )
        assert [{**event, "checkpoint": ""} for event in ours] == [{**event, "checkpoint": ""} for event in theirs]
        for epoch in (1, 2, 3):
            one, other = (checkpoint.load(tmp_path / run / f"model_epoch_{epoch}_byte.pt") for run in (name, "whole"))
            assert one["metrics"] == other["metrics"]
            assert_same(one["model"], other["model"])


@pytest.mark.parametrize("asked_at", [1, 3, 5, 7])
def test_a_run_that_is_asked_to_stop_ends_after_its_step_and_resumes_exactly_there(
    tmp_path: Path, asked_at: int
) -> None:
    whole = tiny_run(tmp_path / "whole", dropout=0.2)
    uninterrupted, _ = trained(whole)
    config = dataclasses.replace(whole, checkpoint_dir=str(tmp_path / "stopped"))
    events = Recorder()
    first = Trainer(config, tiny_text(config), [events])
    first.objective.register_forward_hook(lambda *_: first.stop() if first.step == asked_at - 1 else None)
    first.fit()
    assert first.step == asked_at
    assert isinstance(events[-1], RunEnded)
    assert events[-1].stopped
    second = Trainer(config, tiny_text(config))
    second.resume(tmp_path / "stopped" / "training_state_byte.pt")
    second.fit()
    assert_same(weights(uninterrupted), weights(second))


def test_the_state_is_saved_every_save_every_minutes(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, save_every_minutes=1e-9, eval_every=1000)
    saved: list[int] = []
    trainer = Trainer(config, tiny_text(config))
    save_state = trainer.save_state
    trainer.save_state = lambda: saved.append(trainer.step) or save_state()  # type: ignore[method-assign,func-returns-value]
    trainer.fit()
    assert saved == [*range(1, 16), 15]


def test_the_state_is_saved_every_save_every_steps(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, save_every_steps=4, eval_every=1000)
    saved: list[int] = []
    trainer = Trainer(config, tiny_text(config))
    save_state = trainer.save_state
    trainer.save_state = lambda: saved.append(trainer.step) or save_state()  # type: ignore[method-assign,func-returns-value]
    trainer.fit()
    assert saved == [4, 5, 8, 10, 12, 15, 15]  # at the ends of epochs as well


def test_the_previous_state_is_kept(tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    trainer = Trainer(config, tiny_text(config))
    for _ in range(3):
        trainer.train_step()
        path = trainer.save_state()
    assert checkpoint.load(path)["step"] == 3
    assert checkpoint.load(checkpoint.previous_path(path))["step"] == 2


# Gradients that are not finite


def spoil(trainer: Trainer, steps: set[int]) -> None:
    """Makes the gradient of these steps, counted from 0, infinite."""
    parameter = trainer.model.layers[0].feedforward.up.weight
    parameter.register_hook(lambda gradient: gradient * math.inf if trainer.step in steps else gradient)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_without_a_finite_gradient_changes_nothing_and_is_counted(tmp_path: Path, optimizer: str) -> None:
    config = tiny_run(tmp_path, optimizer=optimizer)
    trainer = Trainer(config, tiny_text(config))
    spoil(trainer, {0, 2})
    for step in range(4):
        before = weights(trainer)
        states = copy.deepcopy([o.state_dict()["state"] for o in trainer.optimizers])
        trainer.train_step()
        moved = any(not torch.equal(value, before[name]) for name, value in weights(trainer).items())
        assert moved == (step not in {0, 2})
        if step == 2:
            assert_same(states, [o.state_dict()["state"] for o in trainer.optimizers])
    report = trainer.report()
    assert report.skipped == 2
    assert math.isfinite(report.loss)
    assert all(value.isfinite().all() for value in weights(trainer).values())
    assert trainer.step == 4


def test_too_many_skipped_steps_in_a_row_end_the_run_with_its_state_saved(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, log_every=4)
    trainer = Trainer(config, tiny_text(config))
    spoil(trainer, set(range(3, 15)))
    with pytest.raises(TrainingError, match=r"1\d steps in a row, up to step 1[3-5], .* lower learning rate"):
        trainer.fit()
    state = checkpoint.load(tmp_path / "training_state_byte.pt")
    assert state["step"] == trainer.step
    assert all(value.isfinite().all() for value in state["model"].values())


def test_a_step_without_targets_leaves_no_nan(tmp_path: Path) -> None:
    """0 nats over 0 targets: the divisor is at least 1."""
    config = tiny_run(tmp_path)
    trainer = Trainer(config, tiny_text(config))
    batches = trainer.batches
    trainer.batches = ((tokens, torch.full_like(targets, IGNORE), place) for tokens, targets, place in batches)
    trainer.train_step()
    report = trainer.report()
    assert (report.tokens, report.skipped, report.grad_norm) == (0, 0, 0.0)
    assert all(value.isfinite().all() for value in weights(trainer).values())


def test_separate_skipped_steps_do_not_end_the_run(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, log_every=4)
    trainer = Trainer(config, tiny_text(config))
    spoil(trainer, {step for step in range(15) if step % 7})
    trainer.fit()
    assert trainer.step == 15


def test_a_finished_run_has_nothing_left_to_do_when_resumed(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, max_steps=4)
    finished, _ = trained(config)
    events = Recorder()
    again = Trainer(config, tiny_text(config), [events])
    again.resume(tmp_path / "training_state_byte.pt")
    again.fit()
    assert_same(weights(finished), weights(again))
    assert [(type(event), event.step) for event in events] == [(RunStarted, 4), (RunEnded, 4)]


def test_a_model_without_its_training_state_cannot_be_resumed(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, max_steps=1)
    trainer, _ = trained(config)
    with pytest.raises(CheckpointError, match=r"model_epoch_1_byte.pt holds a model, but not the state of a run"):
        trainer.resume(tmp_path / "model_epoch_1_byte.pt")


@pytest.mark.parametrize("change", [{"num_layers": 2}, {"d_model": 32}, {"optimizer": "muon"}])
def test_a_state_of_another_shape_is_refused_in_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    trained(tiny_run(tmp_path, max_steps=1))
    other = tiny_run(tmp_path, **change)
    with pytest.raises(CheckpointError, match=r"training_state_byte\.pt does not fit this configuration") as caught:
        Trainer(other, tiny_text(other)).resume(tmp_path / "training_state_byte.pt")
    assert "\n" not in str(caught.value)


# The seed and the global random state


def test_the_same_seed_gives_the_same_run_and_another_one_another(tmp_path: Path) -> None:
    first, second, other = (
        trained(tiny_run(tmp_path / str(n), max_steps=2, dropout=0.2, seed=seed))[0] for n, seed in enumerate([1, 1, 2])
    )
    assert_same(weights(first), weights(second))
    assert not torch.equal(first.model.head.weight, other.model.head.weight)


def test_building_a_trainer_seeds_torch_and_leaves_python_and_numpy_alone(tmp_path: Path) -> None:
    """Torch's global generator is the run's own: its seed fixes the weights and dropout."""
    config = tiny_run(tmp_path, max_steps=1)
    python, numpy = random.getstate(), np.random.get_state()
    states = []
    for disturbance in (3, 4):
        torch.manual_seed(disturbance)
        Trainer(config, tiny_text(config))
        states.append(torch.get_rng_state())
    assert_same(*states)
    trained(config)
    assert random.getstate() == python
    assert_same(list(np.random.get_state()[2:]), list(numpy[2:]))
    assert (np.random.get_state()[1] == numpy[1]).all()


def test_without_dropout_training_leaves_the_random_state(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, dropout=0.0)
    trainer = Trainer(config, tiny_text(config))
    before = torch.get_rng_state()
    trainer.fit()
    assert_same(before, torch.get_rng_state())


# Errors


def test_a_text_shorter_than_a_row_is_refused_with_the_next_step(tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text("To be, or not to be: that is the question.", encoding="utf-8")
    config = DataConfig(str(text), "byte", seq_length=64)
    with pytest.raises(ValueError, match=r"the training text has \d+ tokens, too few for one row of 64 and its"):
        open_dataset(config)


def test_all_impossible_settings_are_named_at_once(tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    broken = dataclasses.replace(config, epochs=0, batch_size=-1, data=dataclasses.replace(config.data, seq_length=9))
    with pytest.raises(ConfigError) as caught:
        Trainer(broken, tiny_text(config))
    assert len(caught.value.problems) == 3
    for part in ("epochs=0", "batch_size=-1", "seq_length=9 is longer than max_seq_len=8"):
        assert part in str(caught.value)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_one_line(tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    config = tiny_run(tmp_path / "run", device=device)
    with pytest.raises(ValueError, match=rf"device '{device}' was asked for, but .* not found; available: cpu$"):
        Trainer(config, tiny_text(config))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_run_on_a_gpu_learns_and_resumes(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, device="cuda", dropout=0.1, max_steps=60, epochs=12)
    trainer, events = trained(config)
    assert [event for event in events if isinstance(event, StepMetrics)][-1].loss < 0.7 * math.log(257)
    again = Trainer(config, tiny_text(config))
    again.resume(tmp_path / "training_state_byte.pt")
    assert_same(weights(trainer), weights(again))
