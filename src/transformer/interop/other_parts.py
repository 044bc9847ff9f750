"""Parts of other models that this model does not have: a config.json that names one is refused."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from transformer.config_base import LARGEST
from transformer.interop.json_settings import Settings

REFUSED = {
    "gemma": "the gated GELU", "gemma2": "soft caps of the logits", "gemma3": "attention windows",
    "gemma3_text": "attention windows", "mixtral": "a mixture of experts", "qwen2_moe": "a mixture of experts",
    "qwen3_moe": "a mixture of experts", "olmoe": "a mixture of experts", "gpt_oss": "a mixture of experts",
    "deepseek_v2": "latent attention", "deepseek_v3": "latent attention", "phi": "a bias of the output projection",
    "phi3": "fused gate and up matrices", "olmo": "norms without weights", "smollm3": "layers without positions",
    "llama4": "a mixture of experts", "llama4_text": "a mixture of experts", "cohere": "a scale of the logits",
    "granite": "scales of the residual stream", "gpt_neo": "local attention", "gptj": "a bias of the output projection",
    "opt": "an offset of the positions", "bloom": "a norm after the embeddings",
    "falcon": "fused multi-query matrices", "stablelm": "biases of the norms alone", "mamba": "state-space layers",
    "t5": "an encoder", "bart": "an encoder", "bert": "attention in both directions", "ministral": "attention windows",
}  # fmt: skip
"""Families that cannot be read -> a part that they need and this model does not have."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attn_logit_softcapping": (0,), "final_logit_softcapping": (0,), "logit_softcap": (0,), "logit_scale": (1,),
    "logits_scaling": (1,), "embedding_multiplier": (1,), "residual_multiplier": (1,), "attention_multiplier": (),
    "query_pre_attn_scalar": (), "num_experts": (0,), "num_local_experts": (0,), "n_routed_experts": (0,),
    "clip_qkv": (), "alibi": (False,), "use_alibi": (False,), "qk_layernorm": (False,), "use_qk_norm": (False,),
    "is_encoder_decoder": (False,), "add_cross_attention": (False,), "attention_chunk_size": (), "pruned_heads": ({},),
    "no_rope_layers": ([],), "quantization_config": (), "scale_attn_by_inverse_layer_idx": (False,),
    "scale_attn_weights": (True,),
}  # fmt: skip
"""Settings that change the results in one family or another -> the values, besides null, that change nothing."""
MPT: dict[str, tuple[Any, ...]] = {
    "no_bias": (True,), "expansion_ratio": (4,), "norm_type": ("low_precision_layernorm", "layernorm"),
}  # fmt: skip
MPT_ATTENTION: dict[str, tuple[Any, ...]] = {
    "attn_type": ("multihead_attention",), "alibi": (True,), "alibi_bias_max": (8,), "qk_ln": (False,),
    "clip_qkv": (), "softmax_scale": (), "prefix_lm": (False,), "attn_uses_sequence_id": (False,),
    "sliding_window_size": (-1,), "rope": (False,),
}  # fmt: skip
"""The same for MPT alone, whose positions are ALiBi's."""


def refuse_other_parts(source: Settings) -> None:
    """Raises SourceError for code, and for parts of other families that would change the results."""
    code = source.inner("auto_map").values
    if models := [name for name in code if name.startswith("AutoModel")]:
        source.refuse(f"auto_map names code of its own for {reprlib.repr(models[0])}, which is never run")
    refuse_others(source, NEUTRAL)
    kinds = source.get("layer_types", [])
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        source.refuse(f"layer_types={reprlib.repr(kinds)}: only full attention is supported")


def refuse_others(source: Settings, known: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises SourceError for a setting that is not among the values, besides null, that this model computes."""
    for name, values in known.items():
        value = source.get(name)
        if value is not None and value not in values:
            source.refuse(f"{name}={reprlib.repr(value)} is a part that this model does not have")


def refuse_biases(source: Settings) -> None:
    if source.flag("attention_bias", False):
        source.refuse("attention_bias=true is not supported: the feed-forward network of this family has no biases")


def refuse_window(source: Settings, window: Any, longest: int) -> None:
    """Raises SourceError if attention sees only a window of the context; one as long as the context is all of it."""
    if window is not None and source.count("sliding_window", 4096, LARGEST["max_seq_len"]) < longest:
        source.refuse(
            f"sliding_window={window} is shorter than the context of {longest}: only full attention; import it with "
            f"--max-seq-len {window}, a context in which both are the same"
        )
