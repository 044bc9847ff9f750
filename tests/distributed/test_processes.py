"""Processes that train together: they agree on everything, and their number changes who computes, not what."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import ranks
from test_trainer import assert_same, tiny_run, tiny_text, trained, weights
from transformer.distributed.processes import Dist
from transformer.trainer import Trainer
from transformer.training import checkpoint
from transformer.training_utils import accumulate_gradients

HERE = Path(__file__).parent
Seen = list[dict[str, Any]]


def run_together(folder: Path, processes: int) -> Seen:
    """Runs two_processes.py with the given number of processes; returns the results of each."""
    config = tiny_run(folder / "alone", batch_size=4, max_steps=6, precision="float32")
    alone = Trainer(config, tiny_text(config))
    for _ in range(3):
        alone.train_step()
    alone.save_state()
    return ranks.seen(HERE / "two_processes.py", folder, processes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def seen(folder: Path) -> Seen:
    """What two processes saw."""
    return run_together(folder, 2)


def test_a_process_without_torchrun_is_alone_and_communicates_with_nobody() -> None:
    with Dist.from_environment({}) as dist:
        assert (dist.rank, dist.world_size, dist.is_main) == (0, 1, True)
        assert not torch.distributed.is_initialized()
        values = torch.tensor([3])
        assert dist.sum(values) is values
        assert dist.gather("it") == ["it"]
        assert dist.from_main("it") == "it"
        module = torch.nn.Linear(1, 1)
        assert dist.parallel(module) is module
        dist.wait()


def test_one_process_of_torchrun_is_alone_too() -> None:
    environment = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}
    assert Dist.from_environment(environment) == Dist()
    restarted = {**environment, "TORCHELASTIC_RUN_ID": "a", "TORCHELASTIC_RESTART_COUNT": "2"}
    assert Dist.from_environment(restarted) == Dist(job="a", restarts=2)
    assert not torch.distributed.is_initialized()


def test_half_an_environment_is_refused_with_the_next_step() -> None:
    with pytest.raises(ValueError, match="WORLD_SIZE=2 is set, but LOCAL_RANK, MASTER_ADDR, MASTER_PORT not: start"):
        Dist.from_environment({"WORLD_SIZE": "2", "RANK": "0"})


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert Dist().own(torch.device("cuda")) == torch.device("cuda")
    assert Dist(5, 8, 1).own(torch.device("cuda")) == torch.device("cuda", 1)
    assert Dist(5, 8, 1).own(torch.device("cpu")) == torch.device("cpu")
    assert chosen == [1]
    with pytest.raises(ValueError, match=r"there is no GPU for process 2 of this machine, .* it has 2; start torchrun"):
        Dist(2, 3, 2).own(torch.device("cuda"))
    with pytest.raises(ValueError, match="not on mps: give --device cpu"):
        Dist(0, 2, 0).own(torch.device("mps"))


@pytest.mark.slow
def test_processes_exchange_numbers_and_settings(seen: Seen) -> None:
    for rank, own in enumerate(seen):
        assert own["communication"] == {
            "place": (rank, 2, rank, rank == 0),
            "sum": [2, 10],
            "gathered": ["rank 0", "rank 1"],
            "from main": "rank 0",
        }


def test_every_token_weighs_the_same_whichever_process_has_it(seen: Seen, folder: Path) -> None:
    """The first process counts 16 targets of its two rows, the other 6: the gradient is that of the mean over 22."""
    config = tiny_run(folder / "plain", batch_size=2, grad_clip=0.0, precision="float32")
    trainer = Trainer(config, tiny_text(config))
    micro_batches = []
    for _ in range(2):
        tokens, targets, _ = next(trainer.batches)
        targets = targets.clone()
        targets[1, :5] = -100  # row 1 is the other process's
        micro_batches.append((tokens, targets))
    nats, counted = accumulate_gradients(trainer.objective, micro_batches, 22)
    gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm().item()
    for own in seen:
        report = own["uneven_targets"]["report"]
        assert report["tokens"] == counted.item() == 22
        assert report["loss"] == pytest.approx(nats.item() / 22, rel=1e-6)
        assert report["grad_norm"] == pytest.approx(norm, rel=1e-5)


def test_all_processes_have_the_same_weights_and_the_same_numbers(seen: Seen) -> None:
    first, second = (own["dropout"] for own in seen)
    assert_same(first["weights"], second["weights"])
    assert [event for event in first["events"] if event["kind"] != "Sample"] == second["events"]  # rank 0 alone writes
    assert first["validation"] == second["validation"]


def test_each_process_draws_dropout_of_its_own(seen: Seen) -> None:
    first, second = (own["dropout"]["draws"] for own in seen)
    assert not torch.equal(first, second)


def test_a_stop_asked_of_one_process_stops_all_after_the_same_step(seen: Seen) -> None:
    assert [own["dropout"]["stopped at"] for own in seen] == [(5, True), (5, True)]


def test_a_resumed_run_of_several_processes_equals_one_that_never_stopped_bit_for_bit(seen: Seen) -> None:
    for own in seen:
        assert_same(own["dropout"]["weights"], own["dropout"]["resumed weights"])
        later = [event for event in own["dropout"]["events"] if event["step"] > 5]
        assert later == [event for event in own["dropout"]["resumed events"] if event["step"] > 5]
        assert later


@pytest.mark.slow
def test_three_processes_resume_bit_for_bit_as_well(tmp_path: Path) -> None:
    """A sum of three depends on its order, and so on how gradients are grouped on their way."""
    for own in run_together(tmp_path, 3):
        assert_same(own["dropout"]["weights"], own["dropout"]["resumed weights"])


def test_all_processes_skip_a_step_that_is_bad_on_one(seen: Seen) -> None:
    assert [own["bad_gradient"] for own in seen] == [{"changed": False, "skipped": 1}] * 2


def test_where_the_text_fails_on_one_process_all_stop_before_the_step_with_the_state_saved(
    seen: Seen, folder: Path
) -> None:
    errors = [own["failing_text"].pop("error") for own in seen]
    assert errors == ["OtherProcessError", "StopIteration"]
    assert [own["failing_text"] for own in seen] == [{"step": 1, "kept": True}] * 2
    assert checkpoint.load(folder / "failing" / "training_state_byte.pt")["step"] == 1


def test_processes_on_processors_that_choose_differently_take_float32(seen: Seen, folder: Path) -> None:
    for name, precision, first, second in zip(
        ("alike", "mixed"), ("bfloat16", "float32"), *(own["kinds_of_processors"] for own in seen), strict=True
    ):
        assert first["precision"] == second["precision"] == precision
        assert_same(first["weights"], second["weights"])
        assert checkpoint.load(folder / name / "training_state_byte.pt")["machine"]["precision"] == precision


def test_only_the_first_process_writes(seen: Seen, folder: Path) -> None:
    assert {path.name for path in (folder / "whole").iterdir()} == {
        "model_epoch_1_byte.pt", "model_epoch_2_byte.pt", "training_state_byte.pt", "training_state_byte_previous.pt",
    }  # fmt: skip


def test_two_processes_resume_the_run_of_one_with_equal_results(seen: Seen, tmp_path: Path) -> None:
    config = tiny_run(tmp_path, batch_size=4, max_steps=6, precision="float32")
    alone, _ = trained(config)
    assert_same(seen[0]["from_one"]["weights"], seen[1]["from_one"]["weights"])
    assert not torch.equal(seen[0]["from_one"]["draws"], seen[1]["from_one"]["draws"])
    for name, value in weights(alone).items():
        if not name.endswith("qkv.bias"):  # the keys' bias has a gradient of rounding noise alone
            torch.testing.assert_close(seen[0]["from_one"]["weights"][name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_one_process_resumes_the_run_of_two(seen: Seen, folder: Path) -> None:
    path = folder / "stopped" / "training_state_byte_previous.pt"
    contents = checkpoint.load(path)
    assert contents["world_size"] == len(contents["random"]) == 2
    config = tiny_run(folder / "on", dropout=0.2, batch_size=2, position="rotary", num_layers=2, max_steps=10)
    trainer = Trainer(config, tiny_text(config))
    trainer.resume(path)
    assert trainer.step == contents["step"]
    assert math.isfinite(trainer.evaluate().loss)
    trainer.fit()
    assert trainer.step == 10


def test_processes_with_different_texts_are_refused(seen: Seen) -> None:
    """Each machine read its own file of the name, and nobody noticed that they trained on different texts."""
    error = " differs between the machines: give all of them the same text"
    assert [one["different_texts"]["error"] for one in seen] == [None, error]
