"""AdamW decays only matrices; Muon takes steps of equal size along all directions of a matrix."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from transformer import DecoderOnlyTransformer, ModelConfig
from transformer.config import OptimizerConfig
from transformer.optimizer import Muon, build_optimizers, orthogonalised, set_learning_rate

Configs = Callable[..., ModelConfig]


def owned(optimizers: list[torch.optim.Optimizer]) -> list[Tensor]:
    return [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]


def with_gradients(config: ModelConfig) -> DecoderOnlyTransformer:
    model = DecoderOnlyTransformer(config)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("tie", [True, False])
def test_every_parameter_has_exactly_one_owner(tiny_config: Configs, kind: str, tie: bool) -> None:
    model = DecoderOnlyTransformer(tiny_config(tie_embeddings=tie))
    found = owned(build_optimizers(model, OptimizerConfig(kind)))  # type: ignore[arg-type]
    assert sorted(map(id, found)) == sorted(id(p) for p in model.parameters())


def test_adamw_decays_matrices_only(tiny_config: Configs) -> None:
    model = DecoderOnlyTransformer(tiny_config())
    (adamw,) = build_optimizers(model, OptimizerConfig(weight_decay=0.25))
    for group in adamw.param_groups:
        assert {p.ndim for p in group["params"]} == ({2} if group["weight_decay"] else {1})
        assert group["weight_decay"] in (0.0, 0.25)
    decayed = {id(p) for group in adamw.param_groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in decayed) == (not name.endswith("bias") and "norm" not in name), name


def test_decay_shrinks_matrices_and_leaves_norms_and_biases(tiny_config: Configs) -> None:
    model = DecoderOnlyTransformer(tiny_config())
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    build_optimizers(model, OptimizerConfig(learning_rate=0.1, weight_decay=0.5))[0].step()
    for name, parameter in model.named_parameters():
        shrink = 1 - 0.1 * 0.5 if parameter.ndim == 2 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * shrink, rtol=1e-5, atol=0)


def test_adamw_takes_its_settings_from_the_config(tiny_config: Configs) -> None:
    chosen = OptimizerConfig(learning_rate=0.3, beta1=0.5, beta2=0.6)
    (adamw,) = build_optimizers(DecoderOnlyTransformer(tiny_config()), chosen)
    for group in adamw.param_groups:
        assert (group["lr"], group["peak_lr"], group["betas"]) == (0.3, 0.3, (0.5, 0.6))


def test_muon_moves_the_matrices_inside_the_blocks_and_no_others(tiny_config: Configs) -> None:
    model = DecoderOnlyTransformer(tiny_config(activation="swiglu"))
    _adamw, muon = build_optimizers(model, OptimizerConfig("muon"))
    assert isinstance(muon, Muon)
    moved = {id(p) for p in owned([muon])}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in moved) == (name.startswith("blocks.") and parameter.ndim == 2), name
    assert len(moved) == 2 * 5  # qkv, out, up, gate, down


def test_frozen_parameters_have_no_owner(tiny_config: Configs) -> None:
    model = DecoderOnlyTransformer(tiny_config())
    model.embeddings.requires_grad_(False)
    frozen = {id(p) for p in model.embeddings.parameters()}
    assert not frozen & {id(p) for p in owned(build_optimizers(model, OptimizerConfig("muon")))}


def test_set_learning_rate_scales_each_groups_peak(tiny_config: Configs) -> None:
    optimizers = build_optimizers(
        DecoderOnlyTransformer(tiny_config()),
        OptimizerConfig("muon", learning_rate=0.4, muon_learning_rate=0.02),
    )
    for scale in (0.5, 0.1, 1.0):  # from the peak each time, not from the last rate
        set_learning_rate(optimizers, scale)
        rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
        assert rates == pytest.approx([0.4 * scale, 0.4 * scale, 0.02 * scale])


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_loaded_state_continues_exactly(tiny_config: Configs, kind: str) -> None:
    torch.manual_seed(1)
    chosen = OptimizerConfig(kind)  # type: ignore[arg-type]
    model = with_gradients(tiny_config())
    optimizers = build_optimizers(model, chosen)
    for optimizer in optimizers:
        optimizer.step()
    twin = with_gradients(tiny_config())
    twin.load_state_dict(model.state_dict())
    copies = build_optimizers(twin, chosen)
    for optimizer, other in zip(optimizers, copies, strict=True):
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # as from a file: load_state_dict shares tensors
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        theirs.grad = ours.grad
    for optimizer in [*optimizers, *copies]:
        optimizer.step()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(8, 8), (24, 16), (16, 48), (64, 24)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_orthogonalised_keeps_directions_and_equalises_singular_values(shape: tuple[int, int], scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    small = min(shape)
    u = torch.linalg.qr(torch.randn(shape[0], small, generator=generator, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(shape[1], small, generator=generator, dtype=torch.float64))[0]
    values = torch.logspace(0, -1.5, small, dtype=torch.float64)  # a factor of 30 between first and last
    flat = orthogonalised(scale * (u * values) @ v.T)
    assert flat.shape == shape
    inside = u.T @ flat @ v  # in the matrix's own directions it is diagonal ...
    torch.testing.assert_close(inside, inside.diag().diag(), rtol=0, atol=1e-6)
    torch.testing.assert_close(u @ inside @ v.T, flat, rtol=0, atol=1e-6)  # ... and there are no others
    assert (inside.diag() > 0.67).all()
    assert (inside.diag() < 1.21).all()


@given(st.integers(2, 24), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=30)
def test_orthogonalised_is_near_the_exact_one(rows: int, ratio: int, seed: int) -> None:
    matrix = torch.randn(rows, rows * (ratio + 1), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    for ours, exact in [(orthogonalised(matrix), u @ vt), (orthogonalised(matrix.T), (u @ vt).T)]:
        values = torch.linalg.svdvals(ours)
        assert values.min() > 0.67
        assert values.max() < 1.21
        assert torch.linalg.matrix_norm(ours - exact, 2) < 0.33
    torch.testing.assert_close(orthogonalised(matrix).T, orthogonalised(matrix.T), rtol=0, atol=1e-9)


def test_orthogonalised_zeros_are_zeros() -> None:
    assert (orthogonalised(torch.zeros(3, 5)) == 0).all()


def test_muon_by_hand() -> None:
    matrix = nn.Parameter(torch.zeros(2, 2))
    matrix.grad = torch.tensor([[0.0, 3.0], [1.0, 0.0]])
    Muon([matrix], lr=0.1).step()
    # Against the gradient's directions, each by about the rate, whatever its singular value.
    assert -0.13 < matrix[0, 1].item() < -0.06
    assert -0.13 < matrix[1, 0].item() < -0.06
    assert matrix[0, 0].item() == pytest.approx(0.0, abs=1e-6)


def test_muons_decay_is_decoupled_from_its_step() -> None:
    matrix = nn.Parameter(torch.full((2, 2), 4.0))
    matrix.grad = torch.zeros(2, 2)
    Muon([matrix], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(matrix.detach(), torch.full((2, 2), 4.0 * 0.95))


def test_muon_leaves_matrices_without_a_gradient() -> None:
    matrices = [nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    matrices[0].grad = torch.eye(2)
    Muon(matrices, lr=0.1).step()
    assert not torch.equal(matrices[0], torch.ones(2, 2))
    assert torch.equal(matrices[1], torch.ones(2, 2))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_both_optimizers_learn(tiny_config: Configs, kind: str) -> None:
    model = DecoderOnlyTransformer(tiny_config())
    optimizers = build_optimizers(model, OptimizerConfig(kind, learning_rate=1e-2, weight_decay=0.0))  # type: ignore[arg-type]
    tokens = torch.randint(0, 17, (4, 9))
    losses = []
    for _ in range(60):
        nats, count = model.loss(tokens[:, :-1], tokens[:, 1:])
        (nats / count).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append((nats / count).item())
    assert losses[-1] < 0.5 * losses[0]
