"""In-context loss: repeated random tokens, and the losses of both halves."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from transformer import DecoderOnlyTransformer
from transformer.interpret import in_context
from transformer.interpret.in_context import halves, in_context_loss, ordinary_tokens, repeated_rows, token_losses
from transformer.text import ByteTokenizer


def drawn(seed: int = 0, rows: int = 3, length: int = 5, tokens: int = 17) -> torch.Tensor:
    return repeated_rows(torch.arange(tokens), rows, length, torch.Generator().manual_seed(seed))


def test_a_row_is_the_same_tokens_twice_all_of_them_different() -> None:
    rows = drawn()
    assert rows.shape == (3, 10)
    assert (rows[:, :5] == rows[:, 5:]).all()
    assert all(len(set(row[:5].tolist())) == 5 for row in rows)
    assert not (rows[0] == rows[1]).all()


def test_a_vocabulary_smaller_than_a_half_repeats_tokens() -> None:
    rows = drawn(length=40, tokens=3)
    assert set(rows.flatten().tolist()) == {0, 1, 2}
    assert (rows[:, :40] == rows[:, 40:]).all()


def test_the_rows_depend_on_the_given_generator_alone() -> None:
    before = torch.get_rng_state()
    assert (drawn(seed=1) == drawn(seed=1)).all()
    assert not (drawn(seed=1) == drawn(seed=2)).all()
    assert (torch.get_rng_state() == before).all()


def test_tokens_are_drawn_in_proportion_to_their_counts_and_never_twice() -> None:
    tokens, counts = torch.tensor([5, 6, 7, 8]), torch.tensor([1000, 1000, 1, 0])
    rows = repeated_rows(tokens, 20, 2, torch.Generator().manual_seed(0), counts)
    assert set(rows.flatten().tolist()) <= {5, 6, 7}
    assert sum(set(row.tolist()) == {5, 6} for row in rows) > 15
    assert all(len(set(row.tolist())) == 2 for row in rows)


def test_end_of_text_is_never_drawn() -> None:
    assert ordinary_tokens(ByteTokenizer()).tolist() == list(range(256))


def test_the_losses_are_those_of_the_model_in_batches(
    tiny_model: Callable[..., DecoderOnlyTransformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = tiny_model(dropout=0.5).train(), drawn()
    monkeypatch.setattr(in_context, "LOGITS_AT_ONCE", 2 * 17 * 10)
    losses = token_losses(model, rows)
    assert model.training
    nats, count = model.eval().loss(rows[:, :-1], rows[:, 1:])
    assert losses.shape == (3, 9)
    assert count == losses.numel()
    torch.testing.assert_close(losses.sum().double(), nats, rtol=1e-5, atol=0)


def test_the_first_target_of_the_second_half_counts_in_neither() -> None:
    """Six tokens: targets at 1 and 2, then at 3, which nothing announces, then at 4 and 5."""
    found = halves(torch.tensor([[2.0, 4.0, 99.0, 1.0, 0.0], [2.0, 4.0, 99.0, 3.0, 0.0]]))
    assert (found.first, found.second, found.gain) == (3.0, 1.0, 2.0)
    assert found.error == pytest.approx(0.5)  # the gains are 2.5 and 1.5: deviation sqrt(0.5), over sqrt(2)


def test_a_single_row_has_no_error() -> None:
    assert math.isnan(halves(torch.ones(1, 3)).error)


def test_a_fresh_model_gains_nothing_from_the_repetition(tiny_config: Callable[..., object]) -> None:
    model = DecoderOnlyTransformer(tiny_config())  # type: ignore[arg-type]
    found = in_context_loss(model, drawn(rows=16))
    assert found.first == pytest.approx(math.log(17), abs=0.1)
    assert abs(found.gain) < 0.1
