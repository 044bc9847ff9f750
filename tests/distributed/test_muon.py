"""DistributedMuon is Muon, except that it can skip a step; sharded matrices are in test_fsdp.py."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from transformer.distributed.muon import DistributedMuon
from transformer.optimizer import Muon
from transformer.training.precision import skip_step_if

SHAPES = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=3)


def with_gradients(shapes: list[tuple[int, int]], seed: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    matrices = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    for matrix in matrices:
        matrix.grad = torch.randn(matrix.shape, generator=generator)
    return matrices


@given(SHAPES, st.floats(1e-4, 1.0), st.floats(0.0, 0.99), st.floats(0.0, 0.5), st.booleans(), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_distributed_version_takes_the_same_steps_as_the_plain_one(
    shapes: list[tuple[int, int]], lr: float, momentum: float, decay: float, may_skip: bool, seed: int
) -> None:
    plain, twin = with_gradients(shapes, seed), with_gradients(shapes, seed)
    optimizers = [Muon(plain, lr, momentum, decay), DistributedMuon(twin, lr, momentum, decay)]
    for _ in range(3):
        if may_skip:  # and does not
            skip_step_if(torch.tensor(False), optimizers[1:])
        for optimizer in optimizers:
            optimizer.step()
    for ours, theirs in zip(plain, twin, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(optimizers[0].state[ours], optimizers[1].state[theirs], rtol=0, atol=0)


@given(SHAPES, st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_a_skipped_step_changes_neither_weights_nor_momentum(shapes: list[tuple[int, int]], seed: int) -> None:
    matrices = with_gradients(shapes, seed)
    optimizer = DistributedMuon(matrices, lr=0.1, weight_decay=0.1)
    optimizer.step()
    before = [(matrix.detach().clone(), optimizer.state[matrix]["momentum"].clone()) for matrix in matrices]
    for matrix in matrices:
        assert matrix.grad is not None
        matrix.grad[0, 0] = torch.inf
    skip_step_if(torch.tensor(True), [optimizer])
    optimizer.step()
    for matrix, (weight, momentum) in zip(matrices, before, strict=True):
        torch.testing.assert_close(matrix.detach(), weight, rtol=0, atol=0)
        torch.testing.assert_close(optimizer.state[matrix]["momentum"], momentum, rtol=0, atol=0)
