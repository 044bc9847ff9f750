"""Hidden units: what they read, what they write, and where they are active."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from transformer import DecoderOnlyTransformer
from transformer.interpret import neurons
from transformer.interpret.neurons import nearest, read_tokens, similar_units, strongest_passages, written_logits

Models = Callable[..., DecoderOnlyTransformer]
VARIANTS = [{}, {"activation": "swiglu", "norm": "rmsnorm"}, {"norm_position": "after"}, {"bias": False}]
ROWS = torch.randint(17, (5, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("settings", [one for one in VARIANTS if "norm_position" not in one])
@torch.no_grad()
def test_what_a_unit_writes_is_the_change_of_the_logits_with_the_norms_frozen(
    tiny_model: Models, settings: dict[str, Any]
) -> None:
    model = tiny_model(**settings)
    found = written_logits(model, 1, 5)
    name, step = "blocks.1.feedforward.hidden", 1e-6
    plain = model.run_with_cache(ROWS[:1], [name])
    bumped = model.run_with_hooks(ROWS[:1], {name: lambda hidden: hidden + step * torch.eye(24)[5].double()})
    # The norm is not frozen here: what is along the stream changes its length only.
    stream = model.run_with_cache(ROWS[:1], ["blocks.1.residual_after"])[1]["blocks.1.residual_after"][0, -1]
    change = (bumped - plain[0])[0, -1] / step
    written = model.layers[1].feedforward.down.weight[:, 5]
    if model.config.norm == "layernorm":
        stream, written = stream - stream.mean(), written - written.mean()
    scale = (stream.square().mean() + model.config.norm_eps).sqrt()
    along = (stream @ written) / (stream @ stream + 16 * model.config.norm_eps)
    expected = model.head.weight @ ((written - along * stream) / scale * model.final_norm.weight)
    torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-4)
    direct = model.head.weight @ (written * model.final_norm.weight)
    torch.testing.assert_close(found, direct - direct.mean(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("settings", VARIANTS)
@torch.no_grad()
def test_a_unit_that_reads_the_vector_of_a_token_finds_it(tiny_model: Models, settings: dict[str, Any]) -> None:
    model = tiny_model(**settings)
    network, norm = model.layers[0].feedforward, model.layers[0].feedforward_norm
    pattern = model.embeddings.token.weight[11]
    first = network.up if network.gate is None else network.gate
    first.weight[3] = pattern if model.layers[0].norms_after else pattern / norm.weight
    best = read_tokens(model, 0, 3, count=2)
    assert best[0] == (11, pytest.approx(1))
    assert best[1][1] < 0.999


@torch.no_grad()
def test_units_that_write_alike_are_found(tiny_model: Models) -> None:
    model = tiny_model()
    down = model.layers[1].feedforward.down.weight
    down[:, 7] = 3 * down[:, 2]
    assert similar_units(model, 1, 2, count=3)[0] == (7, pytest.approx(1))
    assert len(similar_units(model, 1, 2, count=3)) == 3
    assert 2 not in [unit for unit, _ in similar_units(model, 1, 2, count=99)]
    assert nearest(torch.ones(2), torch.eye(2), count=9) == [(unit, pytest.approx(0.5**0.5)) for unit in (0, 1)]


def test_the_strongest_passages_are_the_highest_activations_of_different_rows(
    tiny_model: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(dropout=0.5)
    monkeypatch.setattr(neurons, "ACTIVATIONS_AT_ONCE", 24 * 9 * 2)  # two rows a batch
    found = strongest_passages(model.train(), ROWS, 1, 5, count=3)
    assert model.training
    with torch.no_grad():
        hidden = model.eval().run_with_cache(ROWS)[1]["blocks.1.feedforward.hidden"][..., 5]  # (R, T)
    rows = hidden.max(1).values.argsort(descending=True)[:3]
    assert [passage.row for passage in found] == rows.tolist()
    for passage in found:
        assert passage.position == int(hidden[passage.row].argmax())
        assert passage.activation == pytest.approx(float(hidden[passage.row].max()), abs=1e-9)


@pytest.mark.parametrize(("layer", "unit"), [(2, 0), (-1, 0), (0, 24), (0, -1)])
def test_a_unit_that_does_not_exist_is_refused(tiny_model: Models, layer: int, unit: int) -> None:
    message = f"no unit {unit} of layer {layer}: layers are 0 to 1, units 0 to 23"
    with pytest.raises(ValueError, match=message):
        read_tokens(tiny_model(), layer, unit)
    with pytest.raises(ValueError, match=message):
        strongest_passages(tiny_model(), ROWS, layer, unit)
