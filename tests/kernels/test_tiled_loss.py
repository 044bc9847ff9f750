"""The tiled loss is the plain loss, in value and gradients, without the table of logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from transformer.config import IGNORE
from transformer.kernels import tiled_loss as loss_module
from transformer.kernels.tiled_loss import next_token_loss, tiled_loss, token_nats
from transformer.loss import next_token_loss as plain_loss

Loss = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@contextmanager
def small_tiles(tile: int = 7, buffer_numbers: int = 100, wide: bool = False) -> Iterator[None]:
    """Tiles and groups so small that a small case has several of both, the last ones not full.

    wide: one tile, as on a GPU, which ends with rows of zeros.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_module, "TILE", tile)
        patch.setattr(loss_module, "WIDE_BUFFER_NUMBERS" if wide else "BUFFER_NUMBERS", buffer_numbers)
        patch.setattr(loss_module, "is_wide", lambda device: wide)
        yield


def random_case(
    rows: int, vocab: int, width: int = 5, ignored: float = 0.0, scale: float = 1.0, seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=generator, dtype=torch.float64) * scale
    weight = torch.randn(vocab, width, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, vocab, (rows,), generator=generator)
    targets[torch.rand(rows, generator=generator) < ignored] = IGNORE
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets


def value_and_gradients(
    loss: Loss, hidden: Tensor, weight: Tensor, targets: Tensor, upstream: float = 1.0
) -> tuple[Tensor, ...]:
    nats, count = loss(hidden, weight, targets)
    return nats.detach(), count, *torch.autograd.grad(nats * upstream, (hidden, weight))


def assert_tiled_equals_plain(case: tuple[Tensor, Tensor, Tensor], tolerance: float = 1e-10) -> None:
    tiled = value_and_gradients(tiled_loss, *case)
    plain = value_and_gradients(plain_loss, *case)
    for ours, theirs in zip(tiled, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("loss", [plain_loss, tiled_loss, next_token_loss])
def test_the_loss_by_hand(loss: Loss) -> None:
    hidden, weight = torch.ones(2, 1), torch.tensor([[1.0], [3.0]]).log()  # probabilities 1/4 and 3/4
    nats, count = loss(hidden, weight, torch.tensor([0, 1]))
    assert nats.item() == pytest.approx(math.log(4) + math.log(4 / 3), abs=1e-6)
    assert (nats.shape, count.shape, count.dtype, int(count)) == ((), (), torch.int64, 2)


@pytest.mark.parametrize("loss", [plain_loss, tiled_loss])
def test_the_gradient_by_hand(loss: Loss) -> None:
    hidden = torch.ones(1, 1, requires_grad=True)
    weight = torch.tensor([[1.0], [3.0]]).log().requires_grad_()
    _, _, d_hidden, d_weight = value_and_gradients(loss, hidden, weight, torch.tensor([0]))
    # Expected row less the row that came: 3/4 ln 3 - 0. And p - [v = y], times x = 1.
    torch.testing.assert_close(d_hidden, torch.tensor([[0.75 * math.log(3)]]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(d_weight, torch.tensor([[-0.75], [0.75]]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", [plain_loss, tiled_loss])
def test_equal_logits_cost_the_logarithm_of_the_vocabulary(loss: Loss) -> None:
    nats, count = loss(torch.zeros(3, 4), torch.randn(50, 4), torch.tensor([0, 7, 49]))
    assert (nats / count).item() == pytest.approx(math.log(50), abs=1e-5)


@given(
    rows=st.integers(1, 40), vocab=st.integers(1, 60), width=st.integers(1, 6), tile=st.integers(1, 70),
    buffer_numbers=st.integers(1, 2_000), ignored=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 99),
    wide=st.booleans(),
)  # fmt: skip
@settings(max_examples=120)
def test_tiled_equals_plain_for_any_shape(
    rows: int, vocab: int, width: int, tile: int, buffer_numbers: int, ignored: float, seed: int, wide: bool
) -> None:
    with small_tiles(tile, buffer_numbers, wide):
        assert_tiled_equals_plain(random_case(rows, vocab, width, ignored, seed=seed))


def test_tiled_equals_plain_with_the_real_tile_sizes() -> None:
    vocab = 2 * loss_module.TILE + 123
    case = random_case(30, vocab, width=16, dtype=torch.float32)
    tiled = value_and_gradients(tiled_loss, *case)
    exact = value_and_gradients(plain_loss, *random_case(30, vocab, width=16))
    for ours, theirs in zip(tiled, exact, strict=True):
        torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=2e-5, atol=2e-5)


def test_ignored_targets_are_neither_counted_nor_learnt_from() -> None:
    hidden, weight, targets = random_case(12, 30)
    targets[[0, 5, 11]] = IGNORE
    with small_tiles():
        nats, count, d_hidden, d_weight = value_and_gradients(tiled_loss, hidden, weight, targets)
        kept = [i for i in range(12) if i not in (0, 5, 11)]
        nats_kept, count_kept, d_kept, d_weight_kept = value_and_gradients(
            tiled_loss, hidden.detach()[kept].requires_grad_(), weight, targets[kept]
        )
    assert int(count) == int(count_kept) == 9
    torch.testing.assert_close(nats, nats_kept)
    torch.testing.assert_close(d_hidden[kept], d_kept)
    torch.testing.assert_close(d_weight, d_weight_kept)
    assert (d_hidden[[0, 5, 11]] == 0).all()


@pytest.mark.parametrize("loss", [plain_loss, tiled_loss])
def test_nothing_to_predict_costs_nothing(loss: Loss) -> None:
    hidden, weight, targets = random_case(4, 9, ignored=1.0)
    for case in [(hidden, weight, targets), (hidden.detach()[:0].requires_grad_(), weight, targets[:0])]:
        nats, count, d_hidden, d_weight = value_and_gradients(loss, *case)
        assert nats.item() == 0
        assert int(count) == 0
        assert (d_hidden == 0).all()
        assert (d_weight == 0).all()


@pytest.mark.parametrize("target", [-1, 9])
@pytest.mark.parametrize("loss", [plain_loss, tiled_loss])
def test_a_target_outside_the_vocabulary_is_an_error(loss: Loss, target: int) -> None:
    """A target of -1 was once taken for token 0 by the tiled loss, in silence."""
    hidden, weight, targets = random_case(4, 9)
    targets[2] = target
    with pytest.raises((IndexError, ValueError, RuntimeError)):
        loss(hidden, weight, targets)


def test_a_tied_weight_gets_the_gradient_of_both_its_uses() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(40, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    tokens, targets = torch.randint(0, 40, (2, 15), generator=generator)
    gradients = []
    for loss in (tiled_loss, plain_loss):
        with small_tiles():
            nats, _ = loss(torch.tanh(table[tokens]), table, targets)
        gradients.append(torch.autograd.grad(nats, table)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-10)


def test_the_gradient_is_scaled_by_what_follows_the_loss() -> None:
    case = random_case(10, 25)
    with small_tiles():
        ours = value_and_gradients(tiled_loss, *case, upstream=-0.125)
    theirs = value_and_gradients(plain_loss, *case, upstream=-0.125)
    torch.testing.assert_close(ours[2:], theirs[2:], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_one_of_the_two_may_be_frozen(frozen: str) -> None:
    hidden, weight, targets = random_case(10, 25)
    trained = weight if frozen == "hidden" else hidden
    (hidden if frozen == "hidden" else weight).requires_grad_(False)
    with small_tiles():
        (ours,) = torch.autograd.grad(tiled_loss(hidden, weight, targets)[0], trained)
    (theirs,) = torch.autograd.grad(plain_loss(hidden, weight, targets)[0], trained)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


class Again(torch.autograd.Function):
    """The tiled loss, computed afresh for each backward: gradcheck asks twice, the loss answers once."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight, targets)
        return tiled_loss(hidden, weight, targets)[0]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden, weight, targets = (tensor.detach() for tensor in ctx.saved_tensors)
        with torch.enable_grad():
            pair = (hidden.requires_grad_(), weight.requires_grad_())
            nats, _ = tiled_loss(*pair, targets)
        return *torch.autograd.grad(nats, pair, upstream), None


@pytest.mark.parametrize("ignored", [0.0, 0.4])
def test_gradients_agree_with_finite_differences(ignored: float) -> None:
    hidden, weight, targets = random_case(9, 23, width=3, ignored=ignored)
    with small_tiles():
        assert torch.autograd.gradcheck(Again.apply, (hidden, weight, targets), eps=1e-6, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("scale", [40.0, 300.0, 3_000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("wide", [False, True])
def test_huge_logits_of_either_sign_are_shifted(scale: float, dtype: torch.dtype, wide: bool) -> None:
    case = random_case(20, 30, scale=scale, dtype=dtype)
    assert (case[0] @ case[1].T).abs().max() > 100
    with small_tiles(wide=wide):
        ours = value_and_gradients(tiled_loss, *case)
    theirs = value_and_gradients(plain_loss, *case)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("level", [-1_000.0, -60.0, 60.0, 1_000.0])
def test_logits_that_all_lie_far_from_zero_are_shifted(level: float) -> None:
    hidden, weight, targets = random_case(20, 30, dtype=torch.float32)
    hidden = torch.cat([hidden.detach(), torch.full((20, 1), level)], 1).requires_grad_()
    weight = torch.cat([weight.detach(), torch.ones(30, 1)], 1).requires_grad_()  # adds `level` to every logit
    with small_tiles():
        ours = value_and_gradients(tiled_loss, hidden, weight, targets)
    theirs = value_and_gradients(plain_loss, hidden, weight, targets)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["hidden", "weight"])
@pytest.mark.parametrize("gradients", [True, False])
def test_what_is_not_finite_stays_not_finite(bad: float, where: str, gradients: bool) -> None:
    hidden, weight, targets = random_case(20, 30, dtype=torch.float32)
    with torch.no_grad():
        (hidden if where == "hidden" else weight)[3, 2] = bad
    with small_tiles(), torch.set_grad_enabled(gradients):
        nats, count = tiled_loss(hidden, weight, targets)
    assert not nats.isfinite()
    assert int(count) == 20


@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_without_gradients_the_value_is_the_same(ignored: float) -> None:
    case = random_case(20, 30, ignored=ignored)
    with small_tiles():
        with_gradients, _ = tiled_loss(*case)
        with torch.no_grad():
            without, count = tiled_loss(*case)
    torch.testing.assert_close(without, with_gradients.detach(), rtol=1e-12, atol=1e-12)
    assert not without.requires_grad
    assert int(count) == int((case[2] != IGNORE).sum())


def test_a_second_backward_says_that_the_loss_must_be_computed_again() -> None:
    with small_tiles():
        nats, _ = tiled_loss(*random_case(5, 20))
    nats.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="compute the loss again"):
        nats.backward()


def test_two_backwards_of_two_losses_accumulate() -> None:
    hidden, weight, targets = random_case(8, 20)
    expected = [
        2 * gradient for gradient in torch.autograd.grad(plain_loss(hidden, weight, targets)[0], [hidden, weight])
    ]
    for _ in range(2):
        tiled_loss(hidden, weight, targets)[0].backward()
    torch.testing.assert_close([hidden.grad, weight.grad], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16])
def test_under_bfloat16_autocast_it_stays_close_to_plain(weight_dtype: torch.dtype) -> None:
    hidden, weight, targets = random_case(40, 60, width=16, scale=0.3, ignored=0.2, dtype=torch.float32)
    weight = weight.detach().to(weight_dtype).requires_grad_()
    results = []
    for loss in (tiled_loss, plain_loss):
        with small_tiles(tile=16, buffer_numbers=700), torch.autocast("cpu", torch.bfloat16):
            results.append(value_and_gradients(loss, hidden, weight, targets))
    (nats, count, *gradients), (plain_nats, plain_count, *plain_gradients) = results
    assert nats.dtype == torch.float32
    assert int(count) == int(plain_count)
    torch.testing.assert_close(nats, plain_nats, rtol=2e-3, atol=0)
    for ours, theirs in zip(gradients, plain_gradients, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).float().norm() < 0.02 * theirs.float().norm()  # bfloat16 keeps 8 bits, 0.4 %


def test_under_bfloat16_autocast_it_is_no_further_from_the_truth_than_plain() -> None:
    case = random_case(40, 60, width=16, scale=0.3, dtype=torch.float32)
    exact = value_and_gradients(plain_loss, *random_case(40, 60, width=16, scale=0.3))
    distances = []
    for loss in (tiled_loss, plain_loss):
        with small_tiles(tile=16, buffer_numbers=700), torch.autocast("cpu", torch.bfloat16):
            found = value_and_gradients(loss, *case)
        distances.append([float((a - b).norm() / b.norm()) for a, b in zip(found[2:], exact[2:], strict=True)])
    for ours, theirs in zip(*distances, strict=True):
        assert ours < 2 * theirs


def test_float16_hidden_vectors_do_not_overflow() -> None:
    hidden, weight, targets = random_case(20, 30, scale=8.0, dtype=torch.float16)  # exp(logits) is far above 65,504
    with small_tiles():
        nats, _, d_hidden, d_weight = value_and_gradients(tiled_loss, hidden, weight, targets)
    exact = plain_loss(hidden.double(), weight.double(), targets)[0]
    torch.testing.assert_close(nats.double(), exact.detach(), rtol=1e-3, atol=1e-2)
    assert d_hidden.dtype == d_weight.dtype == torch.float16
    assert d_hidden.isfinite().all()


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


def largest_tensor(loss: Loss, gradients: bool) -> int:
    hidden, weight, targets = random_case(64, 3_001, width=4)  # a table of 192,064 logits
    with small_tiles(tile=128, buffer_numbers=15_000), Largest() as largest:
        if gradients:
            loss(hidden, weight, targets)[0].backward()
        else:
            with torch.no_grad():
                loss(hidden, weight, targets)
    return largest.numbers


def test_the_table_of_logits_is_never_held() -> None:
    assert largest_tensor(plain_loss, gradients=True) == 64 * 3_001  # the measure does see it
    assert largest_tensor(tiled_loss, gradients=True) <= 15_000  # the buffer; the weight has 12,004 numbers


def test_without_gradients_a_single_tile_is_held() -> None:
    assert largest_tensor(plain_loss, gradients=False) == 64 * 3_001
    assert largest_tensor(tiled_loss, gradients=False) <= 3_001 * 4  # the weight itself


@pytest.mark.parametrize(("vocab", "tiled"), [(2_047, False), (2_048, True)])
def test_large_vocabularies_are_tiled_and_small_ones_are_not(
    vocab: int, tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "BUFFER_NUMBERS", 8 * vocab)
    hidden, weight, targets = random_case(32, vocab, width=2)
    with Largest() as largest:
        next_token_loss(hidden, weight, targets)
    assert (largest.numbers < 32 * vocab) == tiled


@given(rows=st.integers(0, 30), vocab=st.integers(1, 40), scale=st.sampled_from([0.1, 1.0, 200.0]))
@settings(max_examples=40)
def test_the_nats_of_each_position_are_those_of_the_table(rows: int, vocab: int, scale: float) -> None:
    """A scale of 200 leaves the range of the exponentials."""
    hidden, weight, targets = random_case(rows, vocab, scale=scale)
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="none").detach()
    for smallest_in_tiles in (0, 1_000):
        with small_tiles(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(loss_module, "TILED_FROM_VOCAB", smallest_in_tiles)
            nats = token_nats(hidden, weight, targets)
        torch.testing.assert_close(nats, expected, rtol=1e-10, atol=1e-10)
        assert not nats.requires_grad
