"""An ablated part is gone, averaged or another row's, and the change of the loss has the rows' error."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from transformer import DecoderOnlyTransformer
from transformer.interpret import in_context
from transformer.interpret.ablation import By, ablate, ablate_all, all_parts
from transformer.interpret.in_context import token_losses

Models = Callable[..., DecoderOnlyTransformer]
ROWS = torch.randint(17, (5, 7), generator=torch.Generator().manual_seed(0))
HEADS = "blocks.1.attention.heads"


def losses(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits.transpose(1, 2), ROWS[:, 1:], reduction="none")


@torch.no_grad()
def test_zero_is_the_model_without_the_weights_that_write_the_head(tiny_model: Models) -> None:
    model, smaller = tiny_model(), tiny_model()
    found = ablate(model, ROWS, HEADS, head=2, by="zero")
    smaller.layers[1].attention.out.weight[:, 8:12] = 0  # D = 4
    torch.testing.assert_close(found.plain, losses(model(ROWS[:, :-1])), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.ablated, losses(smaller(ROWS[:, :-1])), rtol=1e-5, atol=1e-5)
    differences = (found.ablated - found.plain).mean(1)
    assert found.change == pytest.approx(float(differences.mean()))
    assert found.error == pytest.approx(float(differences.std()) / math.sqrt(5))


@pytest.mark.parametrize("name", [HEADS, "blocks.0.feedforward.output", "blocks.1.residual_before"])
@torch.no_grad()
def test_the_mean_is_over_all_rows_and_positions_also_in_batches(
    tiny_model: Models, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    monkeypatch.setattr(in_context, "LOGITS_AT_ONCE", 17 * 7 * 2)  # two rows a batch
    assert [len(batch) for batch in in_context.batches(model, ROWS)] == [3, 2]
    _, activations = model.run_with_cache(ROWS[:, :-1], [name])
    mean = activations[name].mean((0, -2), keepdim=True)
    head = 3 if name == HEADS else None

    def replaced(activation: Tensor) -> Tensor:
        new = mean.expand_as(activation).clone()
        if head is not None:
            new[:, :head] = activation[:, :head]
        return new

    expected = losses(model.run_with_hooks(ROWS[:, :-1], {name: replaced}))
    found = ablate(model, ROWS, name, head=head, by="mean")
    torch.testing.assert_close(found.ablated, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_resampling_takes_the_next_rows_output_at_the_same_position(tiny_model: Models) -> None:
    model = tiny_model()
    _, other = model.run_with_cache(ROWS.roll(1, 0)[:, :-1], ["blocks.0.feedforward.output"])
    expected = model.run_with_hooks(ROWS[:, :-1], {next(iter(other)): lambda _: next(iter(other.values()))})
    found = ablate(model, ROWS, "blocks.0.feedforward.output", by="resample")
    torch.testing.assert_close(found.ablated, losses(expected), rtol=1e-4, atol=1e-4)


def test_all_parts_are_ablated_in_order_and_the_model_stays_in_its_mode(tiny_model: Models) -> None:
    model, told = tiny_model(dropout=0.5).train(), []
    parts = all_parts(model)
    assert (len(parts), parts[5], parts[-1]) == (10, (HEADS, 1), ("blocks.1.feedforward.output", None))
    found = ablate_all(model, ROWS, parts, "mean", on_part=lambda done, total: told.append((done, total)))
    assert told == [(i, 10) for i in range(1, 11)]
    assert model.training
    alone = ablate(model, ROWS, HEADS, head=1)
    assert torch.equal(alone.ablated, found[5].ablated)
    assert torch.equal(alone.plain, found[0].plain)
    assert math.isnan(ablate(model, ROWS[:1], HEADS, by="zero").error)
    with torch.no_grad():
        assert torch.equal(token_losses(model.eval(), ROWS), found[0].plain)


@pytest.mark.parametrize(
    ("rows", "name", "head", "by", "message"),
    [
        (ROWS[:1], HEADS, 0, "resample", "one row has no other row to resample from"),
        (ROWS[0], HEADS, 0, "zero", r"rows have shape \(7,\)"),
        (ROWS, HEADS, 4, "zero", "blocks.1.attention.heads has no head 4: heads are 0 to 3"),
        (ROWS, "blocks.1.residual_mid", 0, "zero", "blocks.1.residual_mid has no head 0"),
        (ROWS, "blocks.2.attention.heads", 0, "zero", "no activation is named 'blocks.2.attention.heads'; nearest"),
    ],
)
def test_what_cannot_be_ablated_is_refused(
    tiny_model: Models, rows: Tensor, name: str, head: int, by: By, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ablate(tiny_model(), rows, name, head=head, by=by)
