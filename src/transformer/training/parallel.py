"""The objective as a step calls it: compiled if so configured, and wrapped for several processes."""

from __future__ import annotations

import torch
from torch import nn

from transformer.config import TrainConfig
from transformer.distributed.processes import Dist
from transformer.training.errors import TrainingError
from transformer.training.precision import Precision
from transformer.training_utils import Objective


def parallel_objective(objective: Objective, config: TrainConfig, dist: Dist, precision: Precision) -> nn.Module:
    """Returns the objective whose backward() leaves the mean gradient of all processes.

    Raises TrainingError if torch.compile does not work on this machine.
    """
    if config.compile:
        objective.compile(fullgraph=True, dynamic=False)
    parallel = dist.parallel(objective)
    if config.compile:
        try:
            _warm_up(parallel, config, precision)
        except Exception as error:
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise TrainingError(f"torch.compile fails on this machine: {first_line}; leave out --compile") from error
    elif dist.world_size > 1:
        # DDP fixes the order in which gradients travel, and so how sums are rounded, in its first pass. A pass without
        # targets gives a new run and a resumed one the same order.
        _warm_up(parallel, config, precision)
    return parallel


def _warm_up(objective: nn.Module, config: TrainConfig, precision: Precision) -> None:
    """Runs forward and backward once on token 0; leaves no gradient and no trace in the random state."""
    device = precision.device
    rows = torch.zeros(config.batch_size, config.data.seq_length, dtype=torch.int64, device=device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), precision.tf32(), precision.autocast():
        objective(rows, rows)[0].backward()
    objective.zero_grad(set_to_none=True)
