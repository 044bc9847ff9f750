"""A model spread over the processes that train it: each keeps its rows of every tensor (PyTorch's FSDP2).

Of W processes each holds a W-th of every weight, and with it of the weight's gradient and of the optimizer's averages.
Before a block computes, its weights are gathered from all, and then let go; once more before its backward pass, after
which every process gets the mean of its own rows' gradients. What is in no block (embeddings, final norm, head) is one
more such group, which stays gathered from forward to backward. All processes must make the same calls in the same
order.

Weights travel as they are, in float32. In bfloat16 they would travel in half the time, but the norms would then compute
with rounded weights, which they do not without sharding. Importing this takes a while, so only a sharded run does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

PASSES = ("loss", "next_logits")
"""Methods of a model that are called from outside, beside forward: weights are gathered for them too."""


def shard(model: nn.Module, blocks: Iterable[nn.Module], device: torch.device, world_size: int) -> None:
    """Leaves each process its rows of every tensor of the model, which is the same on all; brings them to `device`.

    A block's tensors are gathered together, and so are those outside of all blocks.
    """
    mesh = init_device_mesh(device.type, (world_size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for name in PASSES:
        register_fsdp_forward_method(model, name)


def root_of(module: nn.Module) -> FSDPModule:
    """Returns the sharded model in the module, which is it or contains it."""
    return next(part for part in module.modules() if isinstance(part, FSDPModule))


@contextlib.contextmanager
def gradients_stay(module: nn.Module) -> Iterator[None]:
    """Inside the block each process adds up whole gradients of its own; the next backward after it shares them out."""
    root = root_of(module)
    root.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        root.set_requires_gradient_sync(True)


@contextlib.contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Inside the block every process holds the whole model, and may use it or not, without the others. No gradients."""
    root = root_of(model)
    device = next(model.parameters()).device
    was_training = model.training
    root.set_reshard_after_forward(False)
    try:
        with torch.no_grad():  # a pass over one token gathers all, and nothing is let go; dropout draws nothing
            model.eval()(torch.zeros(1, 1, dtype=torch.int64, device=device))
        model.train(was_training)
        yield
    finally:
        root.reset_iter_state()  # lets go; forgets passes that not all processes have made
        root.set_reshard_after_forward(True)
        root.set_reshard_after_forward(False, recurse=False)  # needed at once for backward, as at the beginning


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """Returns the state dict with whole tensors, on rank 0's CPU; the other processes get an empty one."""
    return cast(
        dict[str, Tensor],
        get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)),
    )


def mesh_of(model: nn.Module) -> DeviceMesh:
    """Returns the processes among which the model is spread."""
    return next(value.device_mesh for value in model.state_dict().values() if isinstance(value, DTensor))


def own_part(tensor: Tensor, mesh: DeviceMesh) -> DTensor:
    """Returns this process's rows of a tensor that all processes have."""
    return distribute_tensor(tensor, mesh, [Shard(0)], src_data_rank=None)
