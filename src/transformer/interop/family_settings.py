"""From the config.json of another program to our ModelConfig, family by family.

config.json has no definition: each family of models reads the names that its authors chose, and ignores the others. So
each family here reads the names that its implementation in `transformers` reads, with that implementation's defaults,
and refuses every value that our model cannot compute, because to ignore it would give other numbers. Parts with
weights of their own (a bias, a norm, experts) need no rule: family_weights.py refuses weights that have no place.
Code that a config.json names (`auto_map`) never runs.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from transformer.config import ConfigError, ModelConfig
from transformer.config_base import LARGEST
from transformer.interop.errors import SourceError
from transformer.interop.json_settings import Settings
from transformer.interop.other_parts import (
    MPT,
    MPT_ATTENTION,
    REFUSED,
    refuse_biases,
    refuse_other_parts,
    refuse_others,
    refuse_window,
)

GELU = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "relu": "relu",
}  # fmt: skip
SWIGLU = {"silu": "swiglu", "swish": "swiglu"}
"""Their names of activation functions -> ours."""


def model_config(settings: Mapping[str, Any], max_seq_len: int | None = None) -> ModelConfig:
    """Returns the shape that a config.json describes. Raises SourceError for one that this model cannot have.

    max_seq_len: keep only so many positions of its context, the first ones.
    """
    source = Settings(settings, max_seq_len)
    family = family_name(settings)
    refuse_other_parts(source)
    try:
        return ModelConfig.from_dict(FAMILIES[family](source))
    except ConfigError as error:
        source.refuse(f"not a shape of this model: {error}")


def family_name(settings: Mapping[str, Any]) -> str:
    """Returns the family that a config.json names, its model_type. Raises SourceError for one that is not supported."""
    family = settings.get("model_type")
    if not isinstance(family, str) or not family:
        raise SourceError("config.json: model_type is missing: it names the family, for example 'llama'")
    if family not in FAMILIES:
        lacks = (
            f" needs {REFUSED[family]}, which this model does not have" if family in REFUSED else " is not supported"
        )
        raise SourceError(f"config.json: model_type={reprlib.repr(family)}{lacks}; supported: {', '.join(FAMILIES)}")
    return family


def gpt2(source: Settings) -> dict[str, Any]:
    width = source.count("n_embd", largest=LARGEST["d_model"])
    rates = [source.get(name, 0.1) for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")]
    return {
        "vocab_size": source.count("vocab_size"),
        "d_model": width,
        "num_heads": source.count("n_head", largest=LARGEST["num_heads"]),
        "num_layers": source.count("n_layer", largest=LARGEST["num_layers"]),
        "d_ff": source.count("n_inner", 4 * width),
        "max_seq_len": source.context("n_positions"),
        "norm_eps": source.number("layer_norm_epsilon", 1e-5),
        "activation": source.choice("activation_function", GELU, "gelu_new"),
        "tie_embeddings": source.flag("tie_word_embeddings", True),
        "dropout": dropout(source, rates),
    }


def dropout(source: Settings, rates: list[Any]) -> float:
    """Returns the rate that all parts have, or 0 if they differ: it matters only for training."""
    for rate in rates:
        if type(rate) not in (int, float) or not 0 <= rate < 1:
            source.refuse(f"a dropout rate is {reprlib.repr(rate)}, not a number from 0 to below 1")
    return float(rates[0]) if len(set(rates)) == 1 else 0.0


def llama(source: Settings) -> dict[str, Any]:
    biases = [source.flag(name, False) for name in ("attention_bias", "mlp_bias")]
    if biases[0] != biases[1]:
        source.refuse("attention_bias and mlp_bias must be equal: biases of one of them alone are not supported")
    return like_llama(source) | {"bias": biases[0]}


def like_llama(source: Settings) -> dict[str, Any]:
    """Returns the settings that Llama and the families after it have in common."""
    heads = source.count("num_attention_heads", largest=LARGEST["num_heads"])
    width = source.count("hidden_size", largest=LARGEST["d_model"])
    found = {
        "vocab_size": source.count("vocab_size"),
        "d_model": width,
        "num_heads": heads,
        "num_kv_heads": source.count("num_key_value_heads", heads, LARGEST["num_kv_heads"]),
        "num_layers": source.count("num_hidden_layers", largest=LARGEST["num_layers"]),
        "d_ff": source.count("intermediate_size"),
        "max_seq_len": source.context("max_position_embeddings"),
        "norm": "rmsnorm",
        "norm_eps": source.number("rms_norm_eps", 1e-6),
        "activation": source.choice("hidden_act", SWIGLU, "silu"),
        "bias": False,
        "tie_embeddings": source.flag("tie_word_embeddings", False),
        "dropout": 0.0,
        **rotary(source),
    }
    if source.get("head_dim") is not None and (head := source.count("head_dim", largest=LARGEST["d_model"])):
        found["head_width"] = head if head * heads != width else None
    return found


def mistral(source: Settings) -> dict[str, Any]:
    found = like_llama(source)
    refuse_window(source, source.values.get("sliding_window", 4096), found["max_seq_len"])
    return found


def qwen2(source: Settings) -> dict[str, Any]:
    return qwen(source) | {"qkv_bias": True}


def qwen3(source: Settings) -> dict[str, Any]:
    refuse_biases(source)
    return qwen(source.with_defaults(head_dim=128)) | {"qk_norm": "head"}


def qwen(source: Settings) -> dict[str, Any]:
    found = like_llama(source)
    if source.flag("use_sliding_window", False) and source.count("max_window_layers", 28) < found["num_layers"]:
        refuse_window(source, source.values.get("sliding_window", 4096), found["max_seq_len"])
    return found


def olmo2(source: Settings) -> dict[str, Any]:
    refuse_biases(source)
    found = like_llama(source.with_defaults(rms_norm_eps=1e-5))
    return found | {"qk_norm": "all", "norm_position": "after"}


def gpt_neox(source: Settings) -> dict[str, Any]:
    if not source.flag("attention_bias", True):
        source.refuse("attention_bias=false with biases elsewhere is not supported")
    return {
        "vocab_size": source.count("vocab_size"),
        "d_model": source.count("hidden_size", largest=LARGEST["d_model"]),
        "num_heads": source.count("num_attention_heads", largest=LARGEST["num_heads"]),
        "num_layers": source.count("num_hidden_layers", largest=LARGEST["num_layers"]),
        "d_ff": source.count("intermediate_size"),
        "max_seq_len": source.context("max_position_embeddings"),
        "norm_eps": source.number("layer_norm_eps", 1e-5),
        "activation": source.choice("hidden_act", GELU, "gelu"),
        "tie_embeddings": source.flag("tie_word_embeddings", False),
        "parallel_blocks": source.flag("use_parallel_residual", True),
        "dropout": dropout(source, [source.get("attention_dropout", 0.0), source.get("hidden_dropout", 0.0)]),
        **rotary(source, "rotary_emb_base", "rotary_pct", 0.25),
    }


def mpt(source: Settings) -> dict[str, Any]:
    refuse_others(source, MPT)
    refuse_others(source.inner("attn_config"), MPT_ATTENTION)
    width = source.count("d_model", 2048, LARGEST["d_model"])
    rates = [source.get(name, 0.0) for name in ("resid_pdrop", "emb_pdrop")]
    return {
        "vocab_size": source.count("vocab_size", 50_368),
        "d_model": width,
        "num_heads": source.count("n_heads", 16, LARGEST["num_heads"]),
        "num_layers": source.count("n_layers", 24, LARGEST["num_layers"]),
        "d_ff": 4 * width,
        "max_seq_len": source.context("max_seq_len", 2048),
        "position": "alibi",
        "norm_eps": source.number("layer_norm_epsilon", 1e-5),
        "activation": "gelu",
        "bias": False,
        "tie_embeddings": source.flag("tie_word_embeddings", True),
        "dropout": dropout(source, [*rates, source.inner("attn_config").get("attn_pdrop", 0.0)]),
    }


FAMILIES: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "gpt2": gpt2, "llama": llama, "mistral": mistral, "qwen2": qwen2, "qwen3": qwen3, "olmo2": olmo2,
    "gpt_neox": gpt_neox, "mpt": mpt,
}  # fmt: skip
"""model_type -> the function that reads the family's settings."""


def rotary(
    source: Settings, theta: str = "rope_theta", share: str = "partial_rotary_factor", all_pairs: float = 1.0
) -> dict[str, Any]:
    """Returns the settings of rotary positions; `theta` and `share` are the family's names outside the group."""
    group = source.inner("rope_scaling" if source.get("rope_scaling") else "rope_parameters")
    if any(isinstance(value, dict) for value in group.values.values()):
        group.refuse("positions that differ by kind of layer are not supported")
    found = {"position": "rotary", "rope_theta": group.number("rope_theta", source.number(theta, 10_000.0))}
    fraction = group.number("partial_rotary_factor", source.number(share, all_pairs))
    if fraction != 1:
        found["rotary_fraction"] = rotary_fraction(source, fraction)
    kind = group.get("rope_type", group.get("type", "default"))
    if kind == "linear":
        found["rope_scaling"] = f"linear:{group.number('factor')!r}"
    elif kind == "llama3":
        # Outside the group it has priority; without either it is the whole context.
        place = source if source.get("original_max_position_embeddings") is not None else group
        longest = source.get("max_position_embeddings")
        original = place.count("original_max_position_embeddings", longest, LARGEST["max_seq_len"])
        factors = [group.number(name) for name in ("factor", "low_freq_factor", "high_freq_factor")]
        found["rope_scaling"] = ":".join(["llama3", *map(repr, factors), str(original)])
    elif kind != "default":
        group.refuse(f"rope_type={reprlib.repr(kind)} is not supported; supported: default, linear, llama3")
    return found


def rotary_fraction(source: Settings, fraction: float) -> float:
    """Returns the share of a head's numbers that are rotated, which are a whole number of pairs. GPT-NeoX alone."""
    if source.get("model_type") != "gpt_neox":
        source.refuse(f"partial_rotary_factor={fraction} is supported for gpt_neox only")
    head = source.count("hidden_size") // source.count("num_attention_heads")
    rotated = int(head * fraction)
    if not 0 < rotated <= head or rotated % 2:
        source.refuse(f"a rotary fraction of {fraction} of {head} numbers is not a whole number of pairs")
    return rotated / head
