"""From our ModelConfig to the config.json of an architecture that computes the same.

ARCHITECTURES says what each one can express. A model is written as the first that fits; if none does, the error names
the settings that would have to differ for the nearest one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from transformer.config import ModelConfig
from transformer.interop.family_weights import their_weights
from transformer.model import DecoderOnlyTransformer

RMS: dict[str, tuple[Any, ...]] = {
    "position": ("rotary",), "norm": ("rmsnorm",), "activation": ("swiglu",), "norm_position": ("before",),
    "parallel_blocks": (False,), "rotary_fraction": (1.0,),
}  # fmt: skip
"""What Llama and the families after it have in common; their heads may have any width and share keys and values."""
LAYERNORM: dict[str, tuple[Any, ...]] = {
    "norm": ("layernorm",), "activation": ("gelu", "gelu_tanh", "relu"), "num_kv_heads": (None,),
    "head_width": (None,), "qk_norm": ("none",), "norm_position": ("before",),
}  # fmt: skip
NO_BIAS: dict[str, tuple[Any, ...]] = {"bias": (False,), "qkv_bias": (None, False)}
ARCHITECTURES: dict[str, tuple[str, dict[str, tuple[Any, ...]]]] = {
    "gpt2": ("GPT2LMHeadModel", LAYERNORM | {"position": ("learned", "sinusoidal"), "parallel_blocks": (False,)}),
    "llama": ("LlamaForCausalLM", RMS | {"qk_norm": ("none",), "qkv_bias": (None, False)}),
    "qwen2": ("Qwen2ForCausalLM", RMS | {"qk_norm": ("none",), "bias": (False,), "qkv_bias": (True,)}),
    "qwen3": ("Qwen3ForCausalLM", RMS | NO_BIAS | {"qk_norm": ("head",)}),
    "olmo2": ("Olmo2ForCausalLM", RMS | NO_BIAS | {"qk_norm": ("all",), "norm_position": ("after",)}),
    "gpt_neox": ("GPTNeoXForCausalLM", LAYERNORM | {"position": ("rotary",)}),
    "mpt": (
        "MptForCausalLM",
        LAYERNORM | NO_BIAS | {"position": ("alibi",), "activation": ("gelu",), "parallel_blocks": (False,)},
    ),
}
"""model_type -> the class in transformers, and for each of our settings that matters the values that it can express."""
THEIR_GELU = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}


def hf_settings(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """Returns the config.json of an architecture that computes the same as a model of this shape.

    `dtype` names the type of the weights: "float32". Raises ValueError, with the nearest settings that can be exported,
    for a shape that no architecture has.
    """
    values = canonical(config)
    wrong = {family: misfits(values, family) for family in ARCHITECTURES}
    family = min(wrong, key=lambda name: len(wrong[name]))
    if wrong[family]:
        unlike = ", ".join(f"{name}={values[name]!r}" for name in wrong[family])
        nearest = ", ".join(f"{name}={value!r}" for name, value in wrong[family].items())
        raise ValueError(
            f"no architecture of transformers computes {unlike} with the other settings of this model; "
            f"the nearest, {family}, needs {nearest}"
        )
    common = {
        "model_type": family,
        "architectures": [ARCHITECTURES[family][0]],
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
        "torch_dtype": dtype,  # the name that all versions read; transformers 5 writes "dtype"
    }
    special = {"gpt2": gpt2, "gpt_neox": gpt_neox, "mpt": mpt}.get(family, like_llama)(config)
    return common | special


def canonical(config: ModelConfig) -> dict[str, Any]:
    """Returns the settings, with None for heads that are as many and as wide as they would be by default."""
    values = config.to_dict()
    if config.kv_heads == config.num_heads:
        values["num_kv_heads"] = None
    if config.head_dim * config.num_heads == config.d_model:
        values["head_width"] = None
    return values


def misfits(values: Mapping[str, Any], family: str) -> dict[str, Any]:
    """Returns each setting that an architecture cannot express, with the value nearest to it that it can."""
    wrong = {name: known[0] for name, known in ARCHITECTURES[family][1].items() if values[name] not in known}
    if family == "llama":
        if values["bias"]:
            wrong.pop("qkv_bias", None)  # all have one
        if values["d_model"] % values["num_heads"]:
            wrong["head_width"] = None  # transformers' Llama wants a multiple of num_heads all the same
    if family == "mpt" and values["d_ff"] != 4 * values["d_model"]:
        wrong["d_ff"] = 4 * values["d_model"]
    return wrong


def gpt2(config: ModelConfig) -> dict[str, Any]:
    return {
        "n_embd": config.d_model,
        "n_head": config.num_heads,
        "n_layer": config.num_layers,
        "n_inner": config.d_ff,
        "n_positions": config.max_seq_len,
        "layer_norm_epsilon": config.norm_eps,
        "activation_function": THEIR_GELU[config.activation],
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout),
    }


def mpt(config: ModelConfig) -> dict[str, Any]:
    return {
        "d_model": config.d_model,
        "n_heads": config.num_heads,
        "n_layers": config.num_layers,
        "max_seq_len": config.max_seq_len,
        "layer_norm_epsilon": config.norm_eps,
        "expansion_ratio": 4,
        "no_bias": True,
        "learned_pos_emb": False,
        "attn_config": {"alibi": True, "alibi_bias_max": 8},
        **dict.fromkeys(("resid_pdrop", "emb_pdrop"), config.dropout),
    }


def sizes(config: ModelConfig) -> dict[str, Any]:
    return {
        "hidden_size": config.d_model,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "intermediate_size": config.d_ff,
        "max_position_embeddings": config.max_seq_len,
        "rope_scaling": rope_scaling(config),
    }


def like_llama(config: ModelConfig) -> dict[str, Any]:
    biases = {"attention_bias": config.bias, "mlp_bias": config.bias} if config.qk_norm == "none" else {}
    return {
        **sizes(config),
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_eps,
        "hidden_act": "silu",
        "rope_theta": config.rope_theta,
        **biases,
    }


def gpt_neox(config: ModelConfig) -> dict[str, Any]:
    return {
        **sizes(config),
        "layer_norm_eps": config.norm_eps,
        "hidden_act": THEIR_GELU[config.activation],
        "rotary_emb_base": config.rope_theta,
        "rotary_pct": config.rotary_fraction,
        "use_parallel_residual": config.parallel_blocks,
        "attention_dropout": config.dropout,
        "hidden_dropout": config.dropout,
    }


def rope_scaling(config: ModelConfig) -> dict[str, Any] | None:
    """Returns the rotary frequencies' scaling as a group of settings."""
    kind, *numbers = config.rope_scaling.split(":")
    if kind == "llama3":
        names = ("factor", "low_freq_factor", "high_freq_factor")
        found: dict[str, Any] = dict(zip(names, map(float, numbers), strict=False))
        return {"rope_type": kind, **found, "original_max_position_embeddings": int(float(numbers[3]))}
    return {"rope_type": kind, "factor": float(numbers[0])} if kind else None


def hf_weights(model: DecoderOnlyTransformer) -> Iterator[tuple[str, Tensor]]:
    """Yields (name, tensor) of the weights that hf_settings(model.config) describes, one at a time."""
    return their_weights(model, hf_settings(model.config, "float32"))
