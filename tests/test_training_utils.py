"""Accumulated micro-batches give the gradient of the whole batch, and clipping changes only a gradient's norm."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from transformer import DecoderOnlyTransformer
from transformer.config import IGNORE
from transformer.data.document_mask import document_mask
from transformer.exercises.properties.accumulation import TargetTimesWeight
from transformer.training_utils import Objective, accumulate_gradients, clip_gradients, count_targets

Models = Callable[..., DecoderOnlyTransformer]
Batch = tuple[Tensor, Tensor]


def random_batch(rows: int, seed: int = 0, vocab: int = 17) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, vocab, (rows, 9), generator=generator)
    targets = tokens[:, 1:].clone()
    targets[torch.rand(targets.shape, generator=generator) < 0.3] = IGNORE  # rows have unequal numbers of targets
    return tokens[:, :-1], targets


def gradients_of(model: nn.Module, micro_batches: list[Batch]) -> tuple[list[Tensor], Tensor, Tensor]:
    model.zero_grad()
    divisor = max(1, count_targets(micro_batches))
    nats, tokens = accumulate_gradients(Objective(model), micro_batches, divisor)  # type: ignore[arg-type]
    return [p.grad.clone() for p in model.parameters() if p.grad is not None], nats, tokens


@pytest.mark.parametrize("vocab_size", [17, 2_100])  # the plain and the tiled loss
def test_two_accumulated_halves_equal_one_whole_batch(tiny_model: Models, vocab_size: int) -> None:
    model = tiny_model(vocab_size=vocab_size)
    inputs, targets = random_batch(8, vocab=vocab_size)
    whole = gradients_of(model, [(inputs, targets)])
    halves = gradients_of(model, [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])])
    torch.testing.assert_close(halves, whole, rtol=1e-9, atol=1e-12)


@given(cuts=st.sets(st.integers(1, 7)), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_any_cut_into_micro_batches_gives_the_same_gradient(tiny_model: Models, cuts: set[int], seed: int) -> None:
    model = tiny_model()
    inputs, targets = random_batch(8, seed)
    edges = [0, *sorted(cuts), 8]
    parts = [(inputs[a:b], targets[a:b]) for a, b in itertools.pairwise(edges)]
    torch.testing.assert_close(
        gradients_of(model, parts), gradients_of(model, [(inputs, targets)]), rtol=1e-9, atol=1e-12
    )


def test_a_mean_of_means_weighs_the_tokens_of_a_short_micro_batch_too_much() -> None:
    """The lesson's example: targets 1, 1, 1 and 5. The mean over tokens is 2; the mean of the two means is 3."""
    micro_batches = [(row, row) for row in (torch.tensor([[1, 1, 1]]), torch.tensor([[5, IGNORE, IGNORE]]))]
    objective = TargetTimesWeight()
    accumulate_gradients(objective, micro_batches, divisor=count_targets(micro_batches))
    assert objective.weight.grad == 2.0  # (3 + 5) / 4

    objective = TargetTimesWeight()
    for batch in micro_batches:
        accumulate_gradients(objective, [batch], divisor=count_targets([batch]) * len(micro_batches))
    assert objective.weight.grad == 3.0  # (1 + 5) / 2


def test_the_gradient_is_that_of_the_mean_over_all_tokens(tiny_model: Models) -> None:
    model = tiny_model()
    batch = random_batch(4)
    found, nats, tokens = gradients_of(model, [batch])
    model.zero_grad()
    expected, count = model.loss(*batch)
    (expected / count).backward()
    torch.testing.assert_close(found, [p.grad for p in model.parameters()], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(nats, expected.detach())
    assert int(tokens) == int(count) == count_targets([batch])


def test_the_totals_carry_no_graph(tiny_model: Models) -> None:
    _, nats, tokens = gradients_of(tiny_model(), [random_batch(2), random_batch(3, seed=1)])
    assert not nats.requires_grad
    assert nats.shape == tokens.shape == ()


def test_gradients_are_added_to_those_already_there(tiny_model: Models) -> None:
    model = tiny_model()
    once, *_ = gradients_of(model, [random_batch(2)])
    accumulate_gradients(Objective(model), [random_batch(2)], count_targets([random_batch(2)]))
    torch.testing.assert_close([p.grad for p in model.parameters()], [2 * g for g in once], rtol=1e-9, atol=1e-12)


def test_a_batch_without_targets_gives_no_gradient(tiny_model: Models) -> None:
    inputs, targets = random_batch(2)
    found, nats, tokens = gradients_of(tiny_model(), [(inputs, torch.full_like(targets, IGNORE))])
    assert nats.item() == 0
    assert int(tokens) == 0
    assert all((gradient == 0).all() for gradient in found)


def test_the_objective_keeps_attention_within_documents_if_given_end_of_text(tiny_model: Models) -> None:
    model = tiny_model()
    tokens = torch.tensor([[5, 6, 16, 7, 8, 9]])
    batch = (tokens, tokens.roll(-1, 1))
    masked, plain = Objective(model, end_of_text=16)(*batch)[0], Objective(model)(*batch)[0]
    torch.testing.assert_close(masked, model.loss(*batch, document_mask(tokens, 16))[0], rtol=0, atol=0)
    torch.testing.assert_close(plain, model.loss(*batch)[0], rtol=0, atol=0)
    assert not torch.allclose(masked, plain, rtol=1e-3)


def test_count_targets_leaves_out_padding() -> None:
    row = torch.tensor([[5, IGNORE, 7]])
    assert count_targets([(row, row), (row, row[:, :2])]) == 3
    assert count_targets([]) == 0


def parameters_with_gradients(*gradients: list[float]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(len(gradient))) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return parameters


def test_clipping_by_hand() -> None:
    parameters = parameters_with_gradients([3.0], [0.0, 4.0])
    assert clip_gradients(parameters, 1.0).item() == pytest.approx(5.0)  # the joint norm, before clipping
    assert [g.tolist() for p in parameters if (g := p.grad) is not None] == [
        pytest.approx([0.6], abs=1e-5),
        pytest.approx([0.0, 0.8], abs=1e-5),
    ]


@pytest.mark.parametrize("max_norm", [5.1, 0.0])
def test_a_norm_below_the_maximum_or_a_maximum_of_0_changes_nothing(max_norm: float) -> None:
    parameters = parameters_with_gradients([3.0], [0.0, 4.0])
    assert clip_gradients(parameters, max_norm).item() == pytest.approx(5.0)
    assert [g.tolist() for p in parameters if (g := p.grad) is not None] == [[3.0], [0.0, 4.0]]


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=5), st.floats(0.01, 10))
@settings(max_examples=40)
def test_clipping_keeps_the_direction(gradient: list[float], max_norm: float) -> None:
    parameters = parameters_with_gradients(gradient)
    before = torch.tensor(gradient)
    norm = clip_gradients(parameters, max_norm)
    after = parameters[0].grad
    assert after is not None
    torch.testing.assert_close(norm, before.norm())
    assert after.norm() <= max_norm * 1.001
    torch.testing.assert_close(after * max(1.0, float(norm) / max_norm), before, rtol=1e-3, atol=1e-3)
