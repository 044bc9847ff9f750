"""The logit lens reads each stream as the model reads its last one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer import DecoderOnlyTransformer
from transformer.interpret.lens import lens_logits, logit_lens, stream_names
from variants import variants

Models = Callable[..., DecoderOnlyTransformer]
TOKENS = torch.tensor([[3, 1, 4, 1, 5], [2, 7, 1, 8, 2]])


@given(settings_=variants(), middle=st.booleans())
@settings(max_examples=8)
def test_each_reading_is_norm_and_projection_of_its_stream(
    tiny_model: Models, settings_: dict[str, Any], middle: bool
) -> None:
    model = tiny_model(**settings_)
    with torch.no_grad():
        logits, found = model.run_with_cache(TOKENS)
        readings = dict(lens_logits(model, TOKENS, middle))
    assert list(readings) == stream_names(model, middle)[::-1]
    for name, reading in readings.items():
        torch.testing.assert_close(reading, model.head(model.final_norm(found[name])), rtol=0, atol=1e-10)
    torch.testing.assert_close(readings["blocks.1.residual_after"], logits, rtol=0, atol=1e-10)
    torch.testing.assert_close(readings["embeddings"], model.head(model.final_norm(found["embeddings"])))


def test_the_last_reading_is_the_models_own_prediction_and_the_others_diverge_from_it(tiny_model: Models) -> None:
    model = tiny_model(dropout=0.5).train()
    readings = logit_lens(model, TOKENS, count=3, middle=True)
    assert model.training
    with torch.no_grad():
        own = model.eval()(TOKENS).softmax(-1)
    best = own.topk(3)
    assert [reading.name for reading in readings] == stream_names(model, middle=True)
    assert torch.equal(readings[-1].ids, best.indices)
    torch.testing.assert_close(readings[-1].probabilities, best.values.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(readings[-1].kl, torch.zeros(2, 5), rtol=0, atol=1e-6)
    for reading, (_, logits) in zip(readings, reversed(list(lens_logits(model, TOKENS, middle=True))), strict=True):
        expected = (own * (own.log() - logits.log_softmax(-1))).sum(-1)
        torch.testing.assert_close(reading.kl, expected.float(), rtol=1e-4, atol=1e-5)
    assert all((reading.kl > 0.01).all() for reading in readings[:-1])


def test_parallel_blocks_have_no_stream_in_the_middle(tiny_model: Models) -> None:
    model = tiny_model(parallel_blocks=True)
    expected = ["embeddings", "blocks.0.residual_after", "blocks.1.residual_after"]
    assert [reading.name for reading in logit_lens(model, TOKENS, count=99, middle=True)] == expected
