"""Names of weights, family by family: a family is a table from the modules of our model to the names of theirs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """The names of one family: our module -> theirs, in which {} is the layer; several if they store it in parts."""

    prefix: str
    """What every name but the output projection's begins with; files of the model without its head leave it out."""
    modules: Mapping[str, tuple[str, ...]]
    head: tuple[str, ...] = ("lm_head",)
    """Names of the output projection; the first is the one that is written."""
    unused: str = r"$^"
    """Pattern of tensors that hold no weights: masks and tables that older programs stored."""
    layout: str = "rows"
    """rows, as ours (MPT), transposed (GPT-2) or by head (GPT-NeoX)."""


LLAMA = {
    "embeddings.token": ("embed_tokens",),
    "final_norm": ("norm",),
    "attention_norm": ("layers.{}.input_layernorm",),
    "attention.qkv": tuple(f"layers.{{}}.self_attn.{part}_proj" for part in "qkv"),
    "attention.out": ("layers.{}.self_attn.o_proj",),
    "feedforward_norm": ("layers.{}.post_attention_layernorm",),
    "feedforward.gate": ("layers.{}.mlp.gate_proj",),
    "feedforward.up": ("layers.{}.mlp.up_proj",),
    "feedforward.down": ("layers.{}.mlp.down_proj",),
}
QUERY_KEY_NORMS = {
    "attention.q_norm": ("layers.{}.self_attn.q_norm",),
    "attention.k_norm": ("layers.{}.self_attn.k_norm",),
}
OLMO2 = LLAMA | QUERY_KEY_NORMS | {
    "attention_norm": ("layers.{}.post_attention_layernorm",),
    "feedforward_norm": ("layers.{}.post_feedforward_layernorm",),
}  # fmt: skip
GPT2 = {
    "embeddings.token": ("wte",),
    "embeddings.position": ("wpe",),
    "final_norm": ("ln_f",),
    "attention_norm": ("h.{}.ln_1",),
    "attention.qkv": ("h.{}.attn.c_attn",),
    "attention.out": ("h.{}.attn.c_proj",),
    "feedforward_norm": ("h.{}.ln_2",),
    "feedforward.up": ("h.{}.mlp.c_fc",),
    "feedforward.down": ("h.{}.mlp.c_proj",),
}
GPT_NEOX = {
    "embeddings.token": ("embed_in",),
    "final_norm": ("final_layer_norm",),
    "attention_norm": ("layers.{}.input_layernorm",),
    "attention.qkv": ("layers.{}.attention.query_key_value",),
    "attention.out": ("layers.{}.attention.dense",),
    "feedforward_norm": ("layers.{}.post_attention_layernorm",),
    "feedforward.up": ("layers.{}.mlp.dense_h_to_4h",),
    "feedforward.down": ("layers.{}.mlp.dense_4h_to_h",),
}
MPT = {
    "embeddings.token": ("wte",),
    "final_norm": ("norm_f",),
    "attention_norm": ("blocks.{}.norm_1",),
    "attention.qkv": ("blocks.{}.attn.Wqkv",),
    "attention.out": ("blocks.{}.attn.out_proj",),
    "feedforward_norm": ("blocks.{}.norm_2",),
    "feedforward.up": ("blocks.{}.ffn.up_proj",),
    "feedforward.down": ("blocks.{}.ffn.down_proj",),
}
ROTARY_TABLE = r"layers\.\d+\.(self_attn|attention)\.rotary_emb\.inv_freq"
NAMES = {
    **dict.fromkeys(("llama", "mistral", "qwen2"), Names("model.", LLAMA, unused=ROTARY_TABLE)),
    "qwen3": Names("model.", LLAMA | QUERY_KEY_NORMS),
    "olmo2": Names("model.", OLMO2),
    "gpt2": Names("transformer.", GPT2, unused=r"h\.\d+\.attn\.(masked_)?bias", layout="transposed"),
    "mpt": Names("transformer.", MPT, layout="as ours"),
    "gpt_neox": Names(
        "gpt_neox.", GPT_NEOX, ("embed_out", "lm_head"),
        rf"{ROTARY_TABLE}|layers\.\d+\.attention\.(masked_)?bias", "by head",
    ),
}  # fmt: skip
"""model_type -> the family's names."""


def their_names(names: Names, ours: str) -> list[str]:
    """Returns the tensors that make up one of our parameters, without the prefix: `blocks.3.attention.out.weight`."""
    module, _, kind = ours.rpartition(".")
    layer = re.match(r"blocks\.(\d+)\.", module)
    if module == "head":
        return [f"{names.head[0]}.{kind}"]
    parts = names.modules[module[layer.end() :] if layer else module]
    return [f"{part.format(layer[1] if layer else '')}.{kind}" for part in parts]


def head_names(source: Names) -> list[str]:
    return [f"{head}.weight" for head in source.head]
