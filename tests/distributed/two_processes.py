"""What test_processes.py lets each of two processes do; every process writes what it saw to seen_RANK.pt."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ranks
from test_trainer import Recorder, numbers, tiny_run, tiny_text, weights
from transformer import processor
from transformer.cli.train.session import open_together
from transformer.config import DataConfig, TrainConfig
from transformer.data.contracts import silent
from transformer.distributed.processes import Dist
from transformer.trainer import Trainer
from transformer.training.errors import OtherProcessError
from transformer.training.events import Event

DROPOUT = {"dropout": 0.2, "batch_size": 1, "position": "rotary", "num_layers": 2}
LATER = {"epochs": 3, "max_steps": 9, "eval_every": 4}


def new(config: TrainConfig, dist: Dist) -> tuple[Trainer, list[Event]]:
    events = Recorder()
    return Trainer(config, tiny_text(config), [events], dist), events


def told(events: list[Event]) -> list[dict[str, Any]]:
    return [numbers(event) for event in events]


def communication(dist: Dist) -> dict[str, Any]:
    return {
        "place": (dist.rank, dist.world_size, dist.local_rank, dist.is_main),
        "sum": dist.sum(torch.tensor([1, 10 * dist.rank])).tolist(),
        "gathered": dist.gather(f"rank {dist.rank}"),
        "from main": dist.from_main(f"rank {dist.rank}"),
    }


def uneven_targets(folder: Path, dist: Dist) -> dict[str, Any]:
    """One step in which the processes have unequally many targets, and the step's gradient."""
    config = tiny_run(folder / "uneven", batch_size=1, grad_clip=0.0, precision="float32")
    trainer, _ = new(config, dist)
    batches = trainer.batches

    def ignoring() -> Iterator[Any]:
        for tokens, targets, state in batches:
            yield tokens, targets.masked_fill(torch.arange(8) < 5 * dist.rank, -100), state

    trainer.batches = ignoring()
    trainer.train_step()
    return {"report": numbers(trainer.report())}


def dropout(folder: Path, dist: Dist) -> dict[str, Any]:
    """A run with dropout; the same again; and one that is stopped by a process that is not the first, and resumed."""
    config = tiny_run(folder / "whole", **DROPOUT, **LATER)
    whole, events = new(config, dist)
    draws = torch.rand(4)
    whole, events = new(config, dist)
    whole.fit()
    other = dataclasses.replace(config, checkpoint_dir=str(folder / "stopped"))
    first, _ = new(other, dist)
    first.objective.register_forward_hook(
        lambda *_: first.stop() if (dist.rank, first.step) == (dist.world_size - 1, 4) else None
    )
    first.fit()
    torch.manual_seed(12345)  # a new process has another random state
    second, later = new(other, dist)
    dist.wait()  # rank 0 has written
    second.resume(folder / "stopped" / "training_state_byte.pt")
    second.fit()
    return {
        "draws": draws,
        "weights": weights(whole),
        "resumed weights": weights(second),
        "stopped at": (first.step, first.stopping),
        "events": told(events),
        "resumed events": told(later),
        "validation": whole.evaluate().loss,
    }


def bad_gradient(folder: Path, dist: Dist) -> dict[str, Any]:
    """A step in which the last process alone has an infinite gradient."""
    trainer, _ = new(tiny_run(folder / "bad", batch_size=1), dist)
    bad = trainer.model.layers[0].feedforward.up.weight
    is_bad = dist.rank == dist.world_size - 1
    bad.register_hook(lambda gradient: gradient * math.inf if is_bad and trainer.step == 1 else gradient)
    trainer.train_step()
    before = weights(trainer)
    trainer.train_step()
    changed = any(not torch.equal(value, before[name]) for name, value in weights(trainer).items())
    return {"changed": changed, "skipped": trainer.report().skipped}


def failing_text(folder: Path, dist: Dist) -> dict[str, Any]:
    """A step for which the text fails on the last process alone; then the state is saved."""
    trainer, _ = new(tiny_run(folder / "failing", batch_size=1), dist)
    trainer.train_step()
    state = trainer.so_far.data
    if dist.rank == dist.world_size - 1:
        trainer.batches = iter([])
    error = None
    try:
        trainer.train_step()
    except (StopIteration, OtherProcessError) as caught:
        error = type(caught).__name__
    trainer.save_state()
    return {"error": error, "step": trainer.step, "kept": trainer.so_far.data == state}


def from_one(folder: Path, dist: Dist) -> dict[str, Any]:
    """Goes on with what one process left."""
    config = tiny_run(folder / "alone", batch_size=2, max_steps=6, precision="float32")
    trainer, _ = new(config, dist)
    trainer.resume(folder / "alone" / "training_state_byte.pt")
    draws = torch.rand(4)
    trainer.fit()
    return {"weights": weights(trainer), "draws": draws}


def kinds_of_processors(folder: Path, dist: Dist) -> list[dict[str, Any]]:
    """A run whose processes choose bfloat16 for their kinds of processor, and one of which only rank 0 does."""
    kinds = {choices.training: kind for kind, choices in processor.TABLE.items()}
    seen = []
    for name, kind in (("alike", kinds["bfloat16"]), ("mixed", kinds["bfloat16" if dist.is_main else "float32"])):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(processor, "processor", lambda kind=kind: processor.Processor("its name", kind))
            trainer, _ = new(tiny_run(folder / name, batch_size=1, max_steps=3), dist)
        trainer.fit()
        seen.append({"precision": trainer.machine["precision"], "weights": weights(trainer)})
    return seen


def different_texts(folder: Path, dist: Dist) -> dict[str, Any]:
    """Opens a file whose text differs between the processes, as it may between machines."""
    path = folder / f"text_{dist.rank}.txt"
    path.write_text(f"A line of the text of process {dist.rank}.\n" * 40, encoding="utf-8")
    config = TrainConfig(data=DataConfig(str(path), "byte", 8))
    try:
        open_together(config, None, silent, dist).close()
    except ValueError as caught:
        return {"error": str(caught).removeprefix(str(path))}
    return {"error": None}


def main() -> None:
    folder = Path.cwd()
    torch.set_num_threads(1)
    with Dist.from_environment() as dist:
        seen = {"communication": communication(dist)}
        for job in (
            uneven_targets,
            dropout,
            bad_gradient,
            failing_text,
            from_one,
            kinds_of_processors,
            different_texts,
        ):
            seen[job.__name__] = job(folder, dist)
        torch.save(seen, folder / f"seen_{dist.rank}.pt")


if __name__ == "__main__":
    ranks.start(main)
