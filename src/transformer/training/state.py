"""All that a run needs beside its weights to go on as if it had never stopped.

The optimizers' averages, every process's random state, the position in the text, and what the run has counted so far:
the losses of the epoch and of the steps since the last report, the points that its verdicts rest on, and the epochs
whose checkpoints it has left. The settings and the encoding stand in every checkpoint already.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from transformer.data.contracts import DataState
from transformer.distributed.sharded_checkpoint import complete
from transformer.training.checkpoint import CheckpointError
from transformer.training.metric_sums import StepSums

if TYPE_CHECKING:
    from transformer.trainer import Trainer


def run_state(trainer: Trainer) -> dict[str, Any]:
    """Returns the state as plain values and tensors; all processes must ask for it, and rank 0's is whole."""
    return {
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "random": trainer.dist.gather(random_state(trainer.device)),
        "data": trainer.data_state.to_dict(),
        "world_size": trainer.dist.world_size,
        "job": trainer.dist.job,
        "epoch_loss": [trainer.epoch_nats, trainer.epoch_tokens],
        "window": trainer.sums.state(),
        "loss_scale": trainer.precision.state(),
        "looks_next": trainer.looks_next,
        "train_points": trainer.train_points,
        "validation_points": trainer.validation_points,
        "epochs_saved": trainer.epochs_saved,
    }


def restore(trainer: Trainer, contents: dict[str, Any], path: Path) -> None:
    """Gives the trainer the weights and state of `contents`; raises CheckpointError where they do not fit."""
    if "optimizers" not in contents:
        raise CheckpointError(f"{path} holds a model, but not the state of a run: see training_state_*")
    with must_fit(path):
        contents = complete(contents, trainer.model)
        trainer.model.load_state_dict(contents["model"])
        for optimizer, state in zip(trainer.optimizers, contents["optimizers"], strict=True):
            optimizer.load_state_dict(state)
    trainer.step, trainer.tokens = contents["step"], contents["tokens"]
    if len(set(trainer.dist.gather(trainer.step))) > 1:
        raise CheckpointError(f"{path} is another state on another machine: copy one of them to all")
    trainer.epoch_nats, trainer.epoch_tokens = contents["epoch_loss"]
    trainer.init_from = contents.get("init_from")
    trainer.sums = StepSums.from_state(contents["window"])
    trainer.precision.restore(contents.get("loss_scale", []))
    trainer.looks_next = contents.get("looks_next", False)
    trainer.train_points = list(map(tuple, contents.get("train_points", [])))
    trainer.validation_points = list(map(tuple, contents.get("validation_points", [])))
    if path.parent.resolve() == trainer.directory.resolve():  # in another folder those names may be somebody else's
        trainer.epochs_saved = list(map(tuple, contents.get("epochs_saved", [])))
    trainer.data_state = DataState.from_dict(contents["data"])
    states = contents["random"]
    if trainer.dist.rank < len(states):
        set_random_state(states[trainer.dist.rank], trainer.device)
    else:  # fewer processes left this state
        trainer.seed_own_dropout()


def begin_with(trainer: Trainer, contents: dict[str, Any], path: Path) -> None:
    """Gives a new run the weights of a checkpoint, and notes where they come from; the rest of the state is fresh.

    Raises CheckpointError where they do not fit.
    """
    with must_fit(path):
        trainer.model.load_state_dict(complete(contents, trainer.model)["model"])
    before = {name: contents.get(name) for name in ("step", "tokens", "init_from")}
    trainer.init_from = {"path": str(path), "dataset": contents["config"]["data"]["dataset"], **before}


@contextlib.contextmanager
def must_fit(path: Path) -> Iterator[None]:
    """Around the loading of weights and averages: CheckpointError where their names or shapes are others."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{path} does not fit this configuration: {first}") from error


def random_state(device: torch.device) -> dict[str, Tensor | None]:
    """Returns where PyTorch's generators of the CPU and of a CUDA device are."""
    gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "gpu": gpu}


def set_random_state(state: dict[str, Tensor | None], device: torch.device) -> None:
    """Puts the generators where random_state() found them, on whatever device the state has been loaded to."""
    assert state["cpu"] is not None
    torch.set_rng_state(state["cpu"].cpu())
    if state["gpu"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["gpu"].cpu(), device)
