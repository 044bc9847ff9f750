"""Every shape of ours is exported as an architecture that computes the same, or refused with the nearest that can."""

from __future__ import annotations

import ast
import functools
import itertools
import re
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from transformer import DecoderOnlyTransformer, ModelConfig
from transformer.interop.families import hf_settings, hf_weights, model_config, read_model
from transformer.interop.family_exports import canonical, misfits

SIZES = {
    "vocab_size": 61,
    "d_model": 32,
    "num_heads": 4,
    "num_layers": 2,
    "d_ff": 24,
    "max_seq_len": 32,
    "dropout": 0.0,
}
LLAMA = {"position": "rotary", "norm": "rmsnorm", "activation": "swiglu", "bias": False}
SHAPES: list[tuple[str, dict[str, Any]]] = [
    *[
        (family, {"position": position, "bias": bias, "activation": activation, "tie_embeddings": bias})
        for family, position in (("gpt2", "learned"), ("gpt2", "sinusoidal"), ("gpt_neox", "rotary"))
        for bias, activation in ((True, "gelu"), (False, "gelu_tanh"), (True, "relu"))
    ],
    ("gpt2", {"qkv_bias": False}),
    ("gpt2", {"qkv_bias": True, "bias": False}),
    ("gpt_neox", {"position": "rotary", "parallel_blocks": True, "rotary_fraction": 0.25, "qkv_bias": False}),
    ("gpt_neox", {"position": "rotary", "rope_scaling": "linear:2", "parallel_blocks": True}),
    ("mpt", {"position": "alibi", "bias": False, "d_ff": 128}),
    ("mpt", {"position": "alibi", "bias": False, "d_model": 48, "num_heads": 12, "d_ff": 192, "tie_embeddings": False}),
    ("llama", LLAMA),
    ("llama", LLAMA | {"num_kv_heads": 1, "head_width": 12, "tie_embeddings": False}),
    ("llama", LLAMA | {"bias": True, "qkv_bias": True}),
    ("llama", LLAMA | {"bias": True, "qkv_bias": False, "rope_scaling": "llama3:8:1:4:16"}),
    ("qwen2", LLAMA | {"qkv_bias": True, "num_kv_heads": 2, "head_width": 6}),
    ("qwen3", LLAMA | {"qk_norm": "head", "num_kv_heads": 2}),
    ("olmo2", LLAMA | {"qk_norm": "all", "norm_position": "after", "num_kv_heads": 2, "rope_theta": 500.0}),
]
TOKENS = torch.randint(0, 61, (2, 30), generator=torch.Generator().manual_seed(0))


def stirred(config: ModelConfig) -> DecoderOnlyTransformer:
    torch.manual_seed(0)
    model = DecoderOnlyTransformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


@torch.no_grad()
@pytest.mark.parametrize(("family", "settings"), SHAPES)
def test_an_export_computes_what_the_model_computes(family: str, settings: dict[str, Any]) -> None:
    model = stirred(ModelConfig(**(SIZES | settings)).check())
    written, weights = hf_settings(model.config, "float32"), dict(hf_weights(model))
    assert written["model_type"] == family
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(**written)).eval()
    names = {name: name.replace("embed_out", "lm_head") for name in weights}
    found = theirs.load_state_dict({names[name]: weight for name, weight in weights.items()}, strict=False)
    assert found.unexpected_keys == []
    assert set(found.missing_keys) <= ({"lm_head.weight"} if model.config.tie_embeddings else set())
    assert type(theirs).__name__ in written["architectures"]
    torch.testing.assert_close(theirs(TOKENS).logits, model(TOKENS), rtol=1e-5, atol=1e-5)
    again = read_model(written, weights.__getitem__, weights.keys(), torch.float32)
    torch.testing.assert_close(again(TOKENS), model(TOKENS), rtol=1e-5, atol=1e-5)


@functools.cache
def every_shape() -> list[tuple[ModelConfig, str]]:
    """Returns combinations of settings, each with the reason why it cannot be exported, or an empty text."""
    choices: dict[str, list[Any]] = {
        "position": ["learned", "sinusoidal", "rotary", "alibi"], "norm": ["layernorm", "rmsnorm"],
        "activation": ["gelu", "swiglu"], "bias": [True, False], "qkv_bias": [None, True, False],
        "num_kv_heads": [None, 2], "head_width": [None, 6], "qk_norm": ["none", "head", "all"],
        "norm_position": ["before", "after"], "parallel_blocks": [False, True],
    }  # fmt: skip
    found = []
    for values in itertools.product(*choices.values()):
        config, reason = ModelConfig(**SIZES, **dict(zip(choices, values, strict=True))), ""
        if config.problems():
            continue
        try:
            hf_settings(config, "float32")
        except ValueError as error:
            reason = str(error)
        found.append((config, reason))
    return found


@pytest.mark.slow
def test_a_refused_shape_can_be_exported_with_the_settings_that_the_error_names() -> None:
    reasons = [(config, reason) for config, reason in every_shape() if reason]
    assert len(reasons) > 1000
    for config, reason in reasons:
        assert reason.isprintable()
        [needed] = re.findall(r"needs (.*)", reason)
        changes = {name: ast.literal_eval(value) for name, value in re.findall(r"(\w+)=([^,]+)", needed)}
        hf_settings(ModelConfig.from_dict(config.to_dict() | changes), "float32")


def test_the_settings_of_an_export_are_read_back_as_the_same_shape() -> None:
    exported = [config for config, reason in every_shape() if not reason]
    assert len(exported) > 50
    for config in exported:
        again = model_config(hf_settings(config, "bfloat16"))
        assert (again.kv_heads, again.head_dim) == (config.kv_heads, config.head_dim)
        # A sinusoidal table becomes weights, and a missing bias zeros.
        for name in again.to_dict().keys() - {"position", "bias", "qkv_bias", "num_kv_heads", "head_width"}:
            assert getattr(again, name) == getattr(config, name), name


def test_alibi_is_refused_with_the_nearest_shape() -> None:
    with pytest.raises(ValueError, match=r"position='alibi'.* the nearest, gpt2, needs position='learned'"):
        hf_settings(ModelConfig(position="alibi", activation="gelu_tanh"), "float32")
    narrow = ModelConfig(position="alibi", bias=False, d_model=64, d_ff=96)
    assert misfits(canonical(narrow), "mpt") == {"d_ff": 256}
