"""A model exported for the browser: rounded matrices, exact vectors, and the size of the result."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from transformer import DecoderOnlyTransformer
from transformer.interop.lesson_page import dequantised_model, export, export_tokenizer, exported_bytes, script
from transformer.text import load_tokenizer

Model = Callable[..., DecoderOnlyTransformer]


def test_a_dequantised_model_has_the_config_and_exports_to_the_same_weights(tiny_model: Model) -> None:
    model = tiny_model(vocab_size=257, num_kv_heads=2, tie_embeddings=False, activation="swiglu")
    exported = export(model, load_tokenizer("byte"), {})
    read = dequantised_model(exported)
    assert read.config == model.config
    again = export(read, load_tokenizer("byte"), {})
    assert again["weights"].keys() == dict(model.named_parameters()).keys()
    for name, weight in dequantised_model(again).named_parameters():
        torch.testing.assert_close(weight, read.get_parameter(name), rtol=1e-6, atol=0)


def test_norms_and_biases_are_exported_exactly(tiny_model: Model) -> None:
    model = tiny_model(vocab_size=257, dtype=torch.float32)
    read = dequantised_model(export(model, load_tokenizer("byte"), {}))
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            assert torch.equal(read.get_parameter(name), weight)


def test_a_tied_output_projection_is_stored_once(tiny_model: Model) -> None:
    exported = export(tiny_model(vocab_size=257), load_tokenizer("byte"), {})
    assert "embeddings.token.weight" in exported["weights"]
    assert "head.weight" not in exported["weights"]


def test_the_script_is_one_assignment_that_is_safe_inside_html(tiny_model: Model) -> None:
    exported = export(tiny_model(vocab_size=257), load_tokenizer("byte"), {"dataset": "</script><!-- x"})
    text = script(exported)
    assert "<" not in text
    assigned = text.partition("GPT.exported = ")[2].strip().removesuffix(";")
    assert json.loads(re.sub(r",(\s*\})", r"\1", assigned)) == exported


@pytest.mark.parametrize("encoding", ["byte", "p50k_base"])
def test_the_size_is_estimated_within_a_few_percent(encoding: str, tiny_model: Model) -> None:
    tokenizer = load_tokenizer(encoding)
    model = tiny_model(vocab_size=tokenizer.vocab_size, d_model=64, d_ff=256)
    expected = exported_bytes(model.config, tokenizer)
    assert expected == pytest.approx(len(script(export(model, tokenizer, {}))), rel=0.03)


def test_an_encoding_that_the_page_cannot_run_is_refused() -> None:
    class Words:
        name, vocab_size, eot_id = "words", 3, 2

    with pytest.raises(ValueError, match="encoding 'words' is not a byte or byte-pair encoding"):
        export_tokenizer(Words())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [
        {"head_width": 6}, {"qk_norm": "all"}, {"norm_position": "after"}, {"parallel_blocks": True},
        {"position": "rotary", "rotary_fraction": 0.5}, {"position": "rotary", "rope_scaling": "linear:2"},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_the_page_cannot_compute_are_refused(settings: dict[str, Any], tiny_model: Model) -> None:
    model, tokenizer = tiny_model(vocab_size=257, **settings), load_tokenizer("byte")
    *_, (name, value) = settings.items()
    with pytest.raises(ValueError, match=f"^the page cannot run a model with {name}={value!r}: it computes only"):
        export(model, tokenizer, {})
    with pytest.raises(ValueError, match="the page cannot run"):
        exported_bytes(model.config, tokenizer)
