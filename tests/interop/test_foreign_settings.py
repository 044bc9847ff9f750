"""config.json of other programs: what would change the results is refused by name, what would not is ignored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tiny_families import GPT2, LLAMA3, SIZES
from transformer import ModelConfig
from transformer.interop.errors import SourceError
from transformer.interop.families import model_config

NAMED: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "llama": SIZES,
    "mistral": SIZES | {"sliding_window": None},
    "qwen2": SIZES,
    "qwen3": SIZES,
    "olmo2": SIZES,
    "gpt_neox": SIZES | {"rotary_pct": 0.5},
}


def settings(family: str, **others: Any) -> dict[str, Any]:
    return {"model_type": family, **NAMED[family], **others}


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(SourceError) as error:
        model_config(values)
    message = str(error.value)
    assert message.startswith("config.json: ")
    assert message.isprintable()  # one line, and nothing that a terminal would obey
    assert len(message) < 400
    return message


SIZE_NAMES = {
    "gpt2": ["vocab_size", "n_embd", "n_layer", "n_head", "n_positions"],
    "llama": ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
              "max_position_embeddings"],
}  # fmt: skip


@pytest.mark.parametrize("family", NAMED)
def test_sizes_must_be_whole_numbers_that_a_model_can_have(family: str) -> None:
    for name in SIZE_NAMES.get(family, SIZE_NAMES["llama"]):
        values = settings(family)
        del values[name]
        assert f"{name} is missing" in refusal(values)
        for wrong in (0, -1, 2**31, 10**400, 1.5, 8.0, True, "8", [8], {"n": 8}, "x" * 10**6):
            assert f"{name}=" in refusal(settings(family, **{name: wrong}))


@pytest.mark.parametrize(
    ("family", "name", "values"),
    [
        ("gpt2", "n_inner", [0, -8, "8", 2**40]),
        ("gpt2", "layer_norm_epsilon", [0, -1e-5, "1e-5", True, 10**400]),
        ("gpt2", "tie_word_embeddings", [1, "true", []]),
        ("gpt2", "activation_function", ["silu", "quick_gelu", 3, ["gelu"], {"gelu": 1}]),
        ("gpt2", "resid_pdrop", [1, -0.1, "0.1", [0.1]]),
        ("llama", "num_key_value_heads", [0, -2, 3, "2", 2.0]),
        ("llama", "head_dim", [0, -8, 7, "8" * 1000, [8]]),
        ("llama", "rms_norm_eps", [0, "1e-6", [1]]),
        ("llama", "hidden_act", ["gelu", "relu", "", 1]),
        ("llama", "rope_theta", [0, -1, "10000", [1]]),
        ("gpt_neox", "rotary_pct", [0, 1.5, 0.1, 0.4, "0.5"]),
        ("gpt_neox", "hidden_dropout", ["x", 1.0]),
    ],
)
def test_other_values_must_have_their_kind_and_range(family: str, name: str, values: list[Any]) -> None:
    for value in values:
        refusal(settings(family, **{name: value}))


@pytest.mark.parametrize(
    ("family", "others", "part"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights=False"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention=True"),
        ("gpt2", {"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ("llama", {"attention_bias": True}, "attention_bias and mlp_bias must be equal"),
        ("llama", {"mlp_bias": True}, "attention_bias and mlp_bias must be equal"),
        ("llama", {"final_logit_softcapping": 30.0}, "final_logit_softcapping=30.0"),
        ("llama", {"logit_scale": 0.0625}, "logit_scale=0.0625"),
        ("llama", {"embedding_multiplier": 12.0}, "embedding_multiplier=12.0"),
        ("llama", {"num_local_experts": 8}, "num_local_experts=8"),
        ("llama", {"quantization_config": {"bits": 4, "quant_method": "gptq"}}, "quantization_config"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ("llama", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("llama", {"layer_types": "full_attention"}, "layer_types"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type='dynamic'"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_type='yarn'"),
        ("llama", {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0]}}, "rope_type='longrope'"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "factor is missing"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": "2"}}, "factor='2'"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 0.5}}, "rope_scaling='linear:0.5'"),
        ("llama", {"rope_scaling": {"type": ["linear"]}}, "rope_type="),
        ("llama", {"rope_scaling": "linear"}, "is not a group of settings"),
        ("llama", {"rope_scaling": [1] * 1000}, "is not a group of settings"),
        ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "differ by kind of layer"),
        ("llama", {"rope_parameters": {name: LLAMA3[name] for name in LLAMA3 if name != "factor"}}, "factor is miss"),
        ("llama", {"rope_parameters": LLAMA3 | {"low_freq_factor": 4.0}}, "rope_scaling='llama3"),
        ("llama", {"auto_map": {"AutoModelForCausalLM": "evil--modeling.Model"}}, "auto_map names code"),
        ("llama", {"auto_map": "modeling.Model"}, "auto_map="),
        ("llama", {"hidden_size": 30}, "not divisible by num_heads"),
        ("mistral", {"sliding_window": 32}, "sliding_window=32 is shorter than the context of 64"),
        ("mistral", {"sliding_window": "32"}, "sliding_window='32'"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1}, "sliding_window=32"),
        ("qwen3", {"attention_bias": True}, "attention_bias=true"),
        ("olmo2", {"attention_bias": True}, "attention_bias=true"),
        ("olmo2", {"clip_qkv": 8.0}, "clip_qkv=8.0"),
        ("gpt_neox", {"attention_bias": False}, "attention_bias=false"),
        ("gpt_neox", {"hidden_act": "silu"}, "hidden_act='silu'"),
    ],
)  # fmt: skip
def test_a_part_that_would_change_the_results_is_refused_by_name(family: str, others: dict, part: str) -> None:
    assert part in refusal(settings(family, **others))


@pytest.mark.parametrize(
    ("family", "others"),
    [
        ("gpt2", {"reorder_and_upcast_attn": True, "summary_type": "mean", "task_specific_params": {"a": {"b": 1}}}),
        ("llama", {"logit_scale": 1.0, "final_logit_softcapping": None, "num_experts": None, "pretraining_tp": 2}),
        ("llama", {"auto_map": {"AutoTokenizer": ["tokenization.T", None]}, "anything": [[[{}]]], "": None}),
        ("llama", {"rope_scaling": None, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
        ("llama", {"layer_types": ["full_attention"] * 2, "attention_dropout": 0.1, "head_dim": 8}),
        ("mistral", {"sliding_window": 64}),
        ("qwen2", {"sliding_window": 32, "use_sliding_window": False, "max_window_layers": 1}),
        ("qwen2", {"sliding_window": 32, "use_sliding_window": True, "max_window_layers": 2}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 1}),
    ],
)
def test_a_setting_that_changes_nothing_is_ignored(family: str, others: dict[str, Any]) -> None:
    assert model_config(settings(family, **others)) == model_config(settings(family))


def test_defaults_are_those_of_the_family() -> None:
    assert model_config(settings("gpt2", n_inner=None)).d_ff == 4 * 32
    assert model_config(settings("gpt2")).activation == "gelu_tanh"
    assert model_config(settings("llama")).norm_eps == 1e-6
    assert model_config(settings("olmo2")).norm_eps == 1e-5
    assert model_config(settings("qwen3")).head_dim == 128
    assert model_config(settings("gpt_neox", hidden_size=64, rotary_pct=None)).rotary_fraction == 0.25
    assert model_config(settings("llama")).tie_embeddings is False
    assert model_config(settings("mistral", sliding_window=4096)).max_seq_len == 64


@pytest.mark.parametrize("family", [name for name in NAMED if name != "gpt2"])
def test_positions_that_are_left_out_change_nothing_else(family: str) -> None:
    scaling = {name: value for name, value in LLAMA3.items() if name != "original_max_position_embeddings"}
    scaled = settings(family, rope_parameters=scaling)
    assert model_config(scaled, 5) == replace(model_config(scaled), max_seq_len=5)
    assert model_config(scaled, 64) == model_config(scaled)


def test_a_window_as_long_as_the_positions_that_are_kept_is_full_attention() -> None:
    for window in (
        settings("mistral", sliding_window=32),
        settings("qwen2", sliding_window=32, use_sliding_window=True, max_window_layers=1),
    ):
        assert model_config(window, 32).max_seq_len == 32
        with pytest.raises(SourceError, match="sliding_window=32 is shorter than the context of 33"):
            model_config(window, 33)
        with pytest.raises(SourceError, match="context of 64: only full attention; import it with --max-seq-len 32"):
            model_config(window)


@pytest.mark.parametrize("kept", [-1, 0, 65, 10**20])
def test_more_positions_than_the_model_has_are_refused(kept: int) -> None:
    for family in ("gpt2", "mistral"):
        with pytest.raises(SourceError, match=f"--max-seq-len {kept} must be from 1 to 64, the context of the model"):
            model_config(settings(family), kept)


def test_names_of_older_and_newer_files_mean_the_same() -> None:
    scaling = {name: value for name, value in LLAMA3.items() if name != "rope_theta"}
    old = settings("llama", rope_theta=500.0, rope_scaling=scaling | {"type": "llama3"})
    new = settings("llama", rope_parameters=LLAMA3)
    assert model_config(old) == model_config(new)
    assert model_config(new).rope_scaling == "llama3:8.0:1.0:4.0:16"
    outside = model_config(new | {"original_max_position_embeddings": 32})  # transformers prefers it to the group's
    assert outside.rope_scaling == "llama3:8.0:1.0:4.0:32"
    old = settings("gpt_neox", rotary_emb_base=500, rotary_pct=0.5)
    new = settings("gpt_neox", rope_parameters={"rope_theta": 500.0, "partial_rotary_factor": 0.5})
    assert model_config(old) == model_config(new)


@pytest.mark.parametrize("family", [None, 3, "", [], "gemma2", "mixtral", "nonsense", "x" * 10**6, "a\nb\x1b[2J"])
def test_a_family_that_is_not_supported_is_named_with_what_it_lacks(family: Any) -> None:
    message = refusal({"model_type": family, **SIZES})
    if family == "gemma2":
        assert "needs soft caps of the logits, which this model does not have" in message
    if family in ("mixtral", "nonsense"):
        assert "supported: gpt2, llama, mistral, qwen2, qwen3, olmo2, gpt_neox" in message


def test_sizes_of_known_models_are_read() -> None:
    """The settings that Llama 3.2 1B and Qwen3 0.6B publish."""
    llama = model_config(
        {
            "model_type": "llama", "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
            "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
            "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
            "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                             "original_max_position_embeddings": 8192, "rope_type": "llama3"},
            "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "torch_dtype": "bfloat16",
        }
    )  # fmt: skip
    assert llama == ModelConfig(
        vocab_size=128256, d_model=2048, d_ff=8192, num_layers=16, num_heads=32, num_kv_heads=8, max_seq_len=131072,
        position="rotary", norm="rmsnorm", activation="swiglu", bias=False, rope_theta=500000.0, dropout=0.0,
        rope_scaling="llama3:32.0:1.0:4.0:8192",
    )  # fmt: skip
    qwen = model_config(
        {
            "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072,
            "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
            "hidden_act": "silu", "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000,
            "rope_scaling": None, "tie_word_embeddings": True, "attention_bias": False, "use_sliding_window": False,
            "sliding_window": None, "max_window_layers": 28,
        }
    )  # fmt: skip
    assert (qwen.head_width, qwen.qk_norm, qwen.max_seq_len, qwen.rope_theta) == (128, "head", 40960, 1e6)
