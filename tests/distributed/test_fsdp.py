"""A sharded model learns the same as a replicated one, and its checkpoints load with any number of processes."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from sharded_processes import PROMPT, ROWS, SHAPES

import ranks
from test_trainer import assert_same, numbers, tiny_run, tiny_text, weights
from transformer.distributed import sharded_checkpoint
from transformer.distributed.sharded_checkpoint import newest_first
from transformer.trainer import Trainer
from transformer.training import checkpoint
from transformer.training.checkpoint import CheckpointError
from transformer.training.checkpoint_report import inspect
from transformer.training.events import Event

HERE = Path(__file__).parent
Seen = list[dict[str, Any]]


def run_together(folder: Path, processes: int, *parts: str) -> Seen:
    """Runs these parts of sharded_processes.py with the given number of processes; returns the results of each."""
    return ranks.seen(HERE / "sharded_processes.py", folder, processes, *parts)


def alone(folder: Path, kind: str, **settings: Any) -> tuple[Trainer, list[Event]]:
    """Returns a trainer of one process, with the same steps, and its events."""
    events: list[Event] = []
    config = tiny_run(folder, batch_size=ROWS, **SHAPES[kind], **settings)
    return Trainer(config, tiny_text(config), [events.append]), events


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if not name.endswith("qkv.bias"):  # the keys' bias has a gradient of rounding noise alone
            torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def seen(folder: Path) -> Seen:
    """What two processes saw."""
    return run_together(folder, 2, "first")


@pytest.fixture(scope="module")
def more(folder: Path) -> Seen:
    """What two processes saw of the rest, after one had left them a state; for slow tests."""
    first, _ = alone(folder / "handed", "muon", max_steps=9)
    for _ in range(3):
        first.train_step()
    first.save_state()
    return run_together(folder, 2, "more")


def check_learning(seen: Seen, kind: str, folder: Path) -> None:
    trainer, events = alone(folder / f"{kind}_alone", kind, max_steps=6)
    trainer.fit()
    told = [event for event in map(numbers, events) if event["kind"] in ("StepMetrics", "EvalMetrics")]
    for own in seen:
        for shard in ("True", "False"):
            theirs = [e for e in own[kind][shard]["events"] if e["kind"] in ("StepMetrics", "EvalMetrics")]
            for ours, other in zip(told, theirs, strict=True):
                assert (ours["kind"], ours["step"], ours["tokens"]) == (other["kind"], other["step"], other["tokens"])
                assert other["loss"] == pytest.approx(ours["loss"], rel=1e-5)
                assert other.get("grad_norm", 0.0) == pytest.approx(ours.get("grad_norm", 0.0), rel=1e-4)
            assert_close(weights(trainer), own[kind][shard]["weights"])
        assert_same(own[kind]["True"]["weights"], seen[0][kind]["True"]["weights"])
    check_inside([numbers(event) for event in events], [own[kind]["True"]["events"] for own in seen])


def check_inside(alone: list[dict[str, Any]], sharded: list[list[dict[str, Any]]]) -> None:
    """With watch_inside, rank 0 measures a sharded model as one process measures a whole one."""
    expected, *found = ([e for e in events if e["kind"] == "InsideMetrics"] for events in (alone, *sharded))
    assert [len(events) for events in found] == [len(expected)] + [0] * (len(found) - 1)
    for ours, other in zip(expected, found[0], strict=True):
        assert (ours["step"], ours["even"]) == (other["step"], other["even"])
        assert [ours["first_loss"], ours["second_loss"]] == pytest.approx([other["first_loss"], other["second_loss"]])
        for name, layers in ours["scores"].items():
            for heads, others in zip(layers, other["scores"][name], strict=True):
                assert heads == pytest.approx(others, abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHAPES)
def test_sharded_or_whole_or_alone_a_run_has_the_same_losses(more: Seen, folder: Path, kind: str) -> None:
    check_learning(more, kind, folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHAPES)
def test_each_process_keeps_its_part_of_weights_and_averages(more: Seen, kind: str) -> None:
    for what in ("parameters", "averages"):
        own, every = zip(*(process[kind][what] for process in more), strict=True)
        assert sum(own) == every[0]
        assert max(own) <= 0.6 * every[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHAPES)
def test_an_epochs_checkpoint_is_one_file_of_whole_weights(more: Seen, folder: Path, kind: str) -> None:
    path = checkpoint.latest(folder / f"{kind}_True")
    loaded = checkpoint.load_model(path)
    assert list(loaded.model.state_dict()) == list(checkpoint.load(folder / f"{kind}_False" / path.name)["model"])
    assert_same(dict(loaded.model.state_dict()), more[0][kind]["True"]["weights"])


@pytest.mark.slow
def test_a_new_sharded_run_can_begin_with_the_weights_of_a_checkpoint(more: Seen) -> None:
    for own in more:
        assert_same(own["going_on"]["begun weights"], own["muon"]["True"]["weights"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHAPES)
def test_the_first_process_alone_can_use_the_whole_model(more: Seen, folder: Path, kind: str) -> None:
    model = checkpoint.load_model(checkpoint.latest(folder / f"{kind}_True")).model
    assert more[0][kind]["True"]["written"] == model.generate(torch.tensor(PROMPT), 10).tolist()
    assert more[1][kind]["True"]["written"] == []


def test_a_resumed_sharded_run_equals_one_that_never_stopped_bit_for_bit(seen: Seen) -> None:
    for own in seen:
        assert_same(own["resuming"]["weights"], own["resuming"]["resumed weights"])


def test_replicated_processes_resume_the_run_of_sharded_ones(seen: Seen) -> None:
    for own in seen:
        assert own["resuming"]["losses"][0] == pytest.approx(own["resuming"]["losses"][1], rel=1e-6)


def test_all_processes_skip_a_step_that_is_bad_on_one(seen: Seen) -> None:
    skipped = {"changed": False, "skipped": 1, "continues": True}
    assert [own["bad_gradient"] for own in seen] == [dict.fromkeys(SHAPES, skipped)] * len(seen)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_autocast_loses_no_gradient_of_a_sharded_model(seen: Seen, precision: str) -> None:
    """Its copies of the weights, kept from one micro-batch to the next, once lost the gradients of the later ones."""
    for own in seen:
        assert own["rounding"][precision, True] == pytest.approx(own["rounding"][precision, False], rel=1e-4)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot limit the size of a file")
def test_a_state_that_one_process_cannot_write_is_an_error_on_all_and_the_one_before_stays(seen: Seen) -> None:
    for own in seen:
        found = own["full_disk"]
        assert "could not be written to" in found["error"]
        assert "rank 1: " in found["error"]
        assert (found["step"], found["then"]) == (1, 2)
        assert found["files"] == ["training_state_byte"]


def handed_on(folder: Path, seen: Seen) -> Trainer:
    """Returns one process's trainer that resumed the state of the processes, from step 6 to 9."""
    trainer, _ = alone(folder / "handed", "muon", max_steps=9)
    trainer.resume(Path(seen[0]["going_on"]["path"]))
    assert trainer.step == 6
    assert_same(weights(trainer), seen[0]["going_on"]["weights"])
    for _ in range(3):
        trainer.train_step()
    return trainer


@pytest.mark.slow
def test_one_process_leaves_a_state_to_two_and_they_leave_theirs_to_one(more: Seen, folder: Path) -> None:
    trainer = handed_on(folder, more)
    whole, _ = alone(folder / "never_handed", "muon", max_steps=9)
    for _ in range(9):
        whole.train_step()
    assert trainer.so_far.data == whole.so_far.data
    assert_close(weights(whole), weights(trainer))


@pytest.mark.slow
def test_four_processes_learn_the_same_and_resume_the_run_of_two(
    seen: Seen, more: Seen, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(more[0]["going_on"]["path"], tmp_path / "handed" / "training_state_byte")
    four = run_together(tmp_path, 4, "first", "more")
    for kind in SHAPES:
        check_learning(four, kind, tmp_path)
    for own in four:
        assert_same(own["resuming"]["weights"], own["resuming"]["resumed weights"])
        assert own["bad_gradient"] == seen[0]["bad_gradient"]
        assert own["going_on"]["step"] == 9
        assert_close(weights(handed_on(folder, more)), own["going_on"]["weights"])


# The folder


@pytest.fixture
def state(seen: Seen, tmp_path: Path) -> Path:
    """A copy of a sharded state, of step 6, and of the one before it."""
    for name in ("training_state_byte", "training_state_byte_previous"):
        shutil.copytree(Path(seen[0]["resuming"]["path"]).with_name(name), tmp_path / name)
    return tmp_path / "training_state_byte"


def flip(path: Path) -> None:
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)


@pytest.mark.parametrize("name", ["__0_0.distcp", "__1_0.distcp", ".metadata", "rest.pt"])
def test_a_changed_bit_or_a_missing_file_is_noticed_and_named(state: Path, name: str) -> None:
    flip(state / name)
    with pytest.raises(CheckpointError, match=rf"training_state_byte is damaged .*{name} has another checksum"):
        sharded_checkpoint.load(state)
    (state / name).write_bytes(b"short")
    with pytest.raises(CheckpointError, match=f"{name} has another size"):
        sharded_checkpoint.load(state)
    (state / name).unlink()
    with pytest.raises(CheckpointError, match="training_state_byte is damaged"):
        sharded_checkpoint.load(state)


def test_a_folder_without_its_manifest_is_no_state(state: Path) -> None:
    (state / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="damaged or not a training state"):
        sharded_checkpoint.load(state)


def test_inspecting_a_sharded_state_puts_its_parts_together(state: Path, seen: Seen) -> None:
    report = inspect(state)
    assert report.problems == []
    assert (report.kind, report.step, report.provenance["processes"]) == ("state to resume from, sharded", 6, 2)
    assert report.entries == 4
    weights = seen[0]["resuming"]["weights"]
    tied = weights["head.weight"].numel()
    assert report.parameters == sum(value.numel() for value in weights.values()) - tied
    assert report.optimizer_bytes > report.parameters * 4


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo harm",)


def test_a_state_cannot_run_code(state: Path) -> None:
    metadata = state / ".metadata"
    metadata.write_bytes(pickle.dumps(Harm()))
    listed = json.loads((state / "manifest.json").read_text())
    listed[".metadata"] = sharded_checkpoint._checksums([metadata])[".metadata"]
    (state / "manifest.json").write_text(json.dumps(listed))
    contents = sharded_checkpoint.load(state)
    with pytest.raises(ValueError, match=r"\.metadata names (posix|nt)\.system, which such a file never needs"):
        sharded_checkpoint.complete(contents, torch.nn.Linear(1, 1))


def test_the_state_of_the_higher_step_is_tried_first_of_either_kind(state: Path) -> None:
    file = state.with_suffix(".pt")
    previous = checkpoint.previous_path(state)
    contents = {"format": 1, "config": {}, "tokenizer": {}, "model": {}, "tokens": 0}
    for step, order in ((5, [state, previous, file]), (7, [file, state, previous])):
        checkpoint.save(file, {**contents, "step": step})
        assert newest_first(state.parent) == order
    flip(state / "rest.pt")
    file.write_bytes(b"nothing")
    assert newest_first(state.parent) == [state, previous, file]
    state.rename(state.with_name("training_state_byte.damaged"))  # as resuming does with a damaged one
    assert newest_first(state.parent) == [previous, file]


def test_a_crash_between_two_renamings_leaves_the_state_before(state: Path) -> None:
    state.rename(state.with_name(".training_state_byte.tmp"))
    (before,) = newest_first(state.parent)
    assert before == checkpoint.previous_path(state)
    assert sharded_checkpoint.load(before)["step"] == 6


def test_a_process_alone_cannot_share_a_model(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, shard=True)
    with pytest.raises(ValueError, match="--shard shards one model across several processes, and there is one: start"):
        Trainer(config, tiny_text(config))
