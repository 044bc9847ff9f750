"""What a run has counted so far, and everything else it needs to resume as if it had never stopped.

A training state holds the weights, the optimizer state, the random state of every process, the position in the text,
and RunState: the numbers below. Settings and tokenizer are in every checkpoint already.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from transformer.data.contracts import DataState
from transformer.distributed.sharded_checkpoint import complete
from transformer.training.checkpoint import CheckpointError
from transformer.training.checkpoint_contents import brief
from transformer.training.metric_sums import MetricSums, StepTotals
from transformer.training.trend import TrainPoint, ValidationPoint

OLD_NAMES = {"looks_next": "evaluation_pending", "window": "metric_sums", "epochs_saved": "saved_epochs"}
"""Names in states of earlier versions, and their names today."""


@dataclass
class RunState:
    """What a run has counted so far."""

    step: int = 0
    tokens: int = 0
    data: DataState = field(default_factory=DataState)
    """The position in the text after the last step."""
    metric_sums: MetricSums = field(default_factory=MetricSums)
    """Over the steps since the last report."""
    epoch_nats: float = 0.0
    epoch_tokens: int = 0
    """Summed loss and number of tokens of the epoch so far, for its mean train loss."""
    evaluation_pending: bool = False
    """Whether the evaluation at this step is still to come: the state is saved before it."""
    train_points: list[TrainPoint] = field(default_factory=list)
    validation_points: list[ValidationPoint] = field(default_factory=list)
    """The loss curves, for the diagnosis after each epoch."""
    saved_epochs: list[tuple[int, float]] = field(default_factory=list)
    """The epochs whose checkpoints this run has left in its folder, each with its validation loss, in order."""
    init_from: dict[str, Any] | None = None
    """The checkpoint of the initial weights, with its step and tokens; None: the weights were random."""

    def add_report(self, totals: StepTotals) -> None:
        """Adds the steps since the last report to the epoch and to the train curve."""
        self.epoch_nats += totals.nats
        self.epoch_tokens += totals.counted
        if totals.counted:  # else every step was skipped
            self.train_points.append((self.step, totals.nats / totals.counted, totals.counted))

    def end_epoch(self) -> float:
        """Returns the epoch's mean train loss, in nats per token, and starts the next epoch."""
        loss = self.epoch_nats / max(1, self.epoch_tokens)
        self.epoch_nats, self.epoch_tokens = 0.0, 0
        return loss

    def start_new_text(self) -> None:
        """Moves to the start of a pass over a changed text; losses on the validation text before are not comparable."""
        self.data = DataState(epoch=self.data.epoch + 1)
        self.validation_points = []

    def to_dict(self) -> dict[str, Any]:
        """Returns the state as plain values."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "data": self.data.to_dict(),
            "metric_sums": self.metric_sums.state(),
            "epoch_loss": [self.epoch_nats, self.epoch_tokens],
            "evaluation_pending": self.evaluation_pending,
            "train_points": self.train_points,
            "validation_points": self.validation_points,
            "saved_epochs": self.saved_epochs,
            "init_from": self.init_from,
        }

    @classmethod
    def from_dict(cls, contents: Mapping[str, Any]) -> Self:
        """Returns the state that to_dict() wrote, today or in an earlier version."""
        values = {OLD_NAMES.get(name, name): value for name, value in contents.items()}
        nats, tokens = values["epoch_loss"]
        return cls(
            step=values["step"],
            tokens=values["tokens"],
            data=DataState.from_dict(values["data"]),
            metric_sums=MetricSums.from_state(values["metric_sums"]),
            epoch_nats=nats,
            epoch_tokens=tokens,
            evaluation_pending=values.get("evaluation_pending", False),
            train_points=[tuple(point) for point in values.get("train_points", [])],
            validation_points=[tuple(point) for point in values.get("validation_points", [])],
            saved_epochs=[tuple(pair) for pair in values.get("saved_epochs", [])],
            init_from=values.get("init_from"),
        )


def load_weights(
    contents: dict[str, Any], path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer] = ()
) -> None:
    """Loads the weights of a checkpoint, and the state of the optimizers if given. Raises CheckpointError."""
    with must_fit(path):
        contents = complete(contents, model)
        model.load_state_dict(contents["model"])
        for optimizer, state in zip(optimizers, contents["optimizers"] if optimizers else (), strict=True):
            optimizer.load_state_dict(state)


@contextlib.contextmanager
def must_fit(path: Path) -> Iterator[None]:
    """Turns errors about names, shapes or kinds of loaded values into a CheckpointError of one line."""
    try:
        yield
    except CheckpointError:
        raise
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} does not fit this configuration: {brief(error)}") from error


def random_state(device: torch.device) -> dict[str, Tensor | None]:
    """Returns the state of PyTorch's random generators on the CPU and on a CUDA device."""
    gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "gpu": gpu}


def set_random_state(state: dict[str, Tensor | None], device: torch.device) -> None:
    """Restores random_state(), whatever device the state was loaded to."""
    assert state["cpu"] is not None
    torch.set_rng_state(state["cpu"].cpu())
    if state["gpu"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["gpu"].cpu(), device)
