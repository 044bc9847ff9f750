"""The names of GGUF and of Hugging Face for the same settings and tensors.

The settings of a model have the name of its architecture before them: `llama.context_length`. A tensor of block 3 is
`blk.3.attn_q.weight` there and `model.layers.3.self_attn.q_proj.weight` here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Architecture:
    """An architecture that both formats name alike. Names of tensors are without `.weight` and `.bias`."""

    settings: dict[str, str]
    """GGUF's settings by their names in config.json."""
    blocks: str
    """How names of tensors in a block begin in Hugging Face's format."""
    outside: dict[str, str]
    block: dict[str, str]
    """Hugging Face's names of tensors, outside of blocks and in them, by GGUF's."""
    optional: frozenset[str] = frozenset({"output"})
    pairs: Literal["halves", "neighbours", "none"] = "halves"
    """Which numbers of a query or key rotate together. neighbours: GGUF has these rows in another order."""
    transposed: frozenset[str] = frozenset()
    """Matrices that are (in, out) in Hugging Face's format."""

    def to_hugging_face(self, name: str) -> str | None:
        """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight; None for a name that is not known."""
        stem, _, end = name.rpartition(".")
        if end not in ("weight", "bias"):
            return None
        if found := re.fullmatch(r"blk\.(0|[1-9][0-9]{0,5})\.([a-z_]+)", stem):
            inner = self.block.get(found[2])
            return inner and f"{self.blocks}.{found[1]}.{inner}.{end}"
        outer = self.outside.get(stem)
        return outer and f"{outer}.{end}"

    def to_gguf(self, name: str) -> str:
        """The reverse. Raises KeyError."""
        stem, _, end = name.rpartition(".")
        if found := re.fullmatch(re.escape(self.blocks) + r"\.([0-9]+)\.(.+)", stem):
            return f"blk.{found[1]}.{_reversed(self.block)[found[2]]}.{end}"
        return f"{_reversed(self.outside)[stem]}.{end}"


def _reversed(names: dict[str, str]) -> dict[str, str]:
    return {ours: theirs for theirs, ours in names.items()}


LLAMA_SETTINGS = {
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
LLAMA_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LLAMA_MATRICES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
LLAMA_BLOCK = {**LLAMA_MATRICES, "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
OLMO2_BLOCK = {
    **LLAMA_MATRICES, **HEAD_NORMS,
    "post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip
GPT2_SETTINGS = {
    "n_positions": "context_length",
    "n_embd": "embedding_length",
    "n_layer": "block_count",
    "n_inner": "feed_forward_length",
    "n_head": "attention.head_count",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
}
GPT2_OUTSIDE = {
    "token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f",
    "output": "lm_head",
}  # fmt: skip
GPT2_BLOCK = {
    "attn_norm": "ln_1", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
}  # fmt: skip
MPT_SETTINGS = {
    "max_seq_len": "context_length",
    "d_model": "embedding_length",
    "n_layers": "block_count",
    "n_heads": "attention.head_count",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
}
MPT_OUTSIDE = {"token_embd": "transformer.wte", "output_norm": "transformer.norm_f", "output": "lm_head"}
MPT_BLOCK = {
    "attn_norm": "norm_1", "attn_qkv": "attn.Wqkv", "attn_output": "attn.out_proj", "ffn_norm": "norm_2",
    "ffn_up": "ffn.up_proj", "ffn_down": "ffn.down_proj",
}  # fmt: skip

ARCHITECTURES = {
    "llama": Architecture(LLAMA_SETTINGS, "model.layers", LLAMA_OUTSIDE, LLAMA_BLOCK, pairs="neighbours"),
    "qwen2": Architecture(LLAMA_SETTINGS, "model.layers", LLAMA_OUTSIDE, LLAMA_BLOCK),
    "qwen3": Architecture(LLAMA_SETTINGS, "model.layers", LLAMA_OUTSIDE, {**LLAMA_BLOCK, **HEAD_NORMS}),
    "olmo2": Architecture(LLAMA_SETTINGS, "model.layers", LLAMA_OUTSIDE, OLMO2_BLOCK),
    "mpt": Architecture(MPT_SETTINGS, "transformer.blocks", MPT_OUTSIDE, MPT_BLOCK, pairs="none"),
    "gpt2": Architecture(
        GPT2_SETTINGS, "transformer.h", GPT2_OUTSIDE, GPT2_BLOCK, pairs="none",
        transposed=frozenset({"attn_qkv", "attn_output", "ffn_up", "ffn_down"}),
    ),
}  # fmt: skip
"""By GGUF's `general.architecture`, which is Hugging Face's `model_type` too."""
