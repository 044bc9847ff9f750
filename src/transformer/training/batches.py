"""The micro-batches of an optimizer step: this process's rows, and how many targets all processes have together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from transformer.config import TrainConfig
from transformer.data.contracts import DataState, TextData
from transformer.dataset import PackedBatches
from transformer.distributed.processes import Dist
from transformer.training.errors import OtherProcessError, TextError
from transformer.training_utils import count_targets

Batches = Iterator[tuple[Tensor, Tensor, DataState]]


class StepBatch(NamedTuple):
    """The rows of one optimizer step."""

    micro_batches: list[tuple[Tensor, Tensor]]
    """This process's (tokens, targets), (B, T) int64 each."""
    token_count: int
    """Targets that count, over all micro-batches of all processes."""
    data_state: DataState
    """The position in the text after these rows."""


def open_batches(data: TextData, config: TrainConfig, position: DataState, dist: Dist) -> Batches:
    """Returns this process's micro-batches from a position in the text on, each with the position after it."""
    seq_length = config.data.seq_length
    rows_per_epoch = max(1, data.tokens_per_epoch // seq_length)
    return iter(
        PackedBatches(
            data.train,
            seq_length,
            config.batch_size,
            config.seed,
            position,
            window_rows=min(config.data.shuffle_rows, rows_per_epoch),
            rank=dist.rank,
            world_size=dist.world_size,
        )
    )


def next_step(batches: Batches, accumulation_steps: int, dist: Dist) -> StepBatch:
    """Returns the rows of the next step. If the text fails on one process, all raise, and nothing is consumed."""
    drawn, failure = [], None
    try:
        drawn = [next(batches) for _ in range(accumulation_steps)]
    except Exception as error:
        if dist.world_size == 1:
            raise
        failure = error
    micro_batches = [(tokens, targets) for tokens, targets, _ in drawn]
    counts = torch.tensor([count_targets(micro_batches), failure is not None])
    token_count, failures = dist.sum(counts).tolist()
    if isinstance(failure, ValueError | OSError):
        raise TextError(str(failure)) from failure
    if failure is not None:
        raise failure
    if failures:
        raise OtherProcessError("the text failed on another process, which says why")
    return StepBatch(micro_batches, token_count, drawn[-1][2])
