"""A model sharded across the processes that train it: each keeps its rows of every tensor (PyTorch's FSDP2).

Each of W processes holds 1/W of every weight, and so of the weight's gradient and of the optimizer state. Before a
block computes, all processes gather its weights, and release them afterwards. The same happens in its backward pass,
after which every process receives the mean gradient of its own rows. The tensors outside the blocks (embeddings, final
norm, head) form one more group, which stays gathered from forward to backward. All processes must make the same calls
in the same order.

Weights travel in float32. bfloat16 would halve the traffic, but then norms would compute with rounded weights, which
they do not without sharding. This module takes seconds to import, so only a sharded run imports it.
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

FORWARD_METHODS = ("loss", "next_logits")
"""Methods of a model, besides forward(), that are called from outside: they gather weights too."""


def shard(model: nn.Module, blocks: Iterable[nn.Module], device: torch.device, world_size: int) -> None:
    """Leaves this process its rows of every tensor of the model, which is the same on all; moves them to `device`.

    The tensors of a block are gathered together, and so are those outside all blocks.
    """
    mesh = init_device_mesh(device.type, (world_size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for name in FORWARD_METHODS:
        register_fsdp_forward_method(model, name)


def root_of(module: nn.Module) -> FSDPModule:
    """Returns the sharded model, which is the module or a part of it."""
    return next(part for part in module.modules() if isinstance(part, FSDPModule))


@contextlib.contextmanager
def no_sync(module: nn.Module) -> Iterator[None]:
    """Inside the block each process adds up full gradients of its own; the next backward() after it averages them."""
    root = root_of(module)
    root.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        root.set_requires_gradient_sync(True)


@contextlib.contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Inside the block every process holds the full model and can use it without the others, without gradients."""
    root = root_of(model)
    device = next(model.parameters()).device
    was_training = model.training
    root.set_reshard_after_forward(False)
    try:
        with torch.no_grad():  # a forward pass over one token gathers everything; in eval mode dropout draws nothing
            model.eval()(torch.zeros(1, 1, dtype=torch.int64, device=device))
        model.train(was_training)
        yield
    finally:
        root.reset_iter_state()  # releases the weights, and forgets passes that only some processes made
        root.set_reshard_after_forward(True)
        root.set_reshard_after_forward(False, recurse=False)  # backward needs the root group at once: FSDP's default


def full_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Returns the state dict with full tensors, on rank 0's CPU; the other processes get an empty one."""
    return cast(
        dict[str, Tensor],
        get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)),
    )


def mesh_of(model: nn.Module) -> DeviceMesh:
    """Returns the mesh of processes across which the model is sharded."""
    return next(value.device_mesh for value in model.state_dict().values() if isinstance(value, DTensor))


def shard_tensor(tensor: Tensor, mesh: DeviceMesh) -> DTensor:
    """Returns this process's rows of a tensor that all processes have."""
    return distribute_tensor(tensor, mesh, [Shard(0)], src_data_rank=None)
