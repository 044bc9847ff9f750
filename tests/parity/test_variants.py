"""Each setting that a family of models needs computes what transformers' model of that family computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from transformer import DecoderOnlyTransformer, ModelConfig
from transformer.embeddings import rotary_table

TOKENS = torch.randint(0, 61, (2, 24), generator=torch.Generator().manual_seed(0))
SHAPE: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 24, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
OURS: dict[str, Any] = {
    "vocab_size": 61, "d_model": 32, "d_ff": 40, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "max_seq_len": 24,
    "dropout": 0.0, "position": "rotary", "norm": "rmsnorm", "norm_eps": 1e-6, "activation": "swiglu", "bias": False,
    "tie_embeddings": False, "rope_theta": 100.0,
}  # fmt: skip
LLAMA_NAMES = {
    "attention_norm": "input_layernorm", "attention.out": "self_attn.o_proj", "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm", "feedforward_norm": "post_attention_layernorm",
    "feedforward.gate": "mlp.gate_proj", "feedforward.up": "mlp.up_proj", "feedforward.down": "mlp.down_proj",
}  # fmt: skip


def rope(kind: str = "default", **numbers: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 100.0, **numbers}}


LLAMA3 = rope(
    "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16
)  # fmt: skip
CASES: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any]]] = {
    "llama, linear": (
        LlamaForCausalLM, LlamaConfig, rope("linear", factor=2.5), {"rope_scaling": "linear:2.5"},
    ),
    "llama 3.1": (LlamaForCausalLM, LlamaConfig, LLAMA3, {"rope_scaling": "llama3:8.0:1.0:4.0:16"}),
    "qwen 2.5": (Qwen2ForCausalLM, Qwen2Config, rope(), {"qkv_bias": True}),
    "qwen 3": (Qwen3ForCausalLM, Qwen3Config, {**rope(), "head_dim": 12}, {"qk_norm": "head", "head_width": 12}),
    "olmo 2": (Olmo2ForCausalLM, Olmo2Config, rope(), {"qk_norm": "all", "norm_position": "after"}),
}  # fmt: skip


def randomised(model: PreTrainedModel) -> PreTrainedModel:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def check_logits(model: DecoderOnlyTransformer, weights: dict[str, Tensor], reference: nn.Module) -> None:
    """Compares the logits of the whole text, and of every token read with the cache."""
    model.load_state_dict(weights)
    expected = reference(TOKENS).logits
    torch.testing.assert_close(model(TOKENS), expected, rtol=1e-5, atol=1e-5)
    cache = model.allocate_cache(2)
    chunks = [model(TOKENS[:, i : i + 6], cache) for i in range(0, 24, 6)]
    torch.testing.assert_close(torch.cat(chunks, dim=1), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", CASES)
@torch.no_grad()
def test_the_logits_of_a_family_agree(family: str) -> None:
    build, config, their_settings, our_settings = CASES[family]
    reference = randomised(build(config(**SHAPE, **their_settings)))
    source = reference.state_dict()
    weights = {
        "embeddings.token.weight": source["model.embed_tokens.weight"], "head.weight": source["lm_head.weight"],
        "final_norm.weight": source["model.norm.weight"],
    }  # fmt: skip
    names = dict(LLAMA_NAMES)
    if family == "olmo 2":
        names |= {"attention_norm": "post_attention_layernorm", "feedforward_norm": "post_feedforward_layernorm"}
    for layer in range(2):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        for kind in ("weight", "bias"):
            parts = [source.get(f"{theirs}.self_attn.{part}_proj.{kind}") for part in "qkv"]
            if parts[0] is not None:
                weights[f"{ours}.attention.qkv.{kind}"] = torch.cat(parts)  # type: ignore[arg-type]
        for our_name, name in names.items():
            if f"{theirs}.{name}.weight" in source:
                weights[f"{ours}.{our_name}.weight"] = source[f"{theirs}.{name}.weight"]
    check_logits(DecoderOnlyTransformer(ModelConfig(**OURS, **our_settings)).eval(), weights, reference)


@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0])
@torch.no_grad()
def test_gpt_neox_agrees_with_parallel_blocks_and_a_fraction_of_rotating_pairs(fraction: float) -> None:
    """Its rotating numbers come first in a head, ours are the first of both halves: rows of q and k are reordered."""
    settings = {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": fraction}
    reference = randomised(
        GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40,
                max_position_embeddings=24, layer_norm_eps=1e-5, rotary_pct=fraction, rope_parameters=settings,
            )
        )
    )  # fmt: skip
    shape = {**OURS, "norm": "layernorm", "norm_eps": 1e-5, "activation": "gelu", "bias": True, "num_kv_heads": 4}
    model = DecoderOnlyTransformer(ModelConfig(**shape, rotary_fraction=fraction, parallel_blocks=True)).eval()
    source, turns = reference.state_dict(), round(fraction * 8) // 2
    order = [*range(turns), *range(2 * turns, 4 + turns), *range(turns, 2 * turns), *range(4 + turns, 8)]
    weights = {
        "embeddings.token.weight": source["gpt_neox.embed_in.weight"], "head.weight": source["lm_head.weight"],
        "final_norm.weight": source["gpt_neox.final_layer_norm.weight"],
        "final_norm.bias": source["gpt_neox.final_layer_norm.bias"],
    }  # fmt: skip
    names = {
        "attention_norm": "input_layernorm", "feedforward_norm": "post_attention_layernorm",
        "attention.out": "attention.dense", "feedforward.up": "mlp.dense_h_to_4h",
        "feedforward.down": "mlp.dense_4h_to_h",
    }  # fmt: skip
    for layer in range(2):
        for kind in ("weight", "bias"):
            qkv = source[f"gpt_neox.layers.{layer}.attention.query_key_value.{kind}"].unflatten(0, (4, 3, 8))
            q, k, v = (qkv[:, 0][:, order], qkv[:, 1][:, order], qkv[:, 2])  # (H, D, ...) each
            weights[f"blocks.{layer}.attention.qkv.{kind}"] = torch.cat([part.flatten(0, 1) for part in (q, k, v)])
            for ours, theirs in names.items():
                weights[f"blocks.{layer}.{ours}.{kind}"] = source[f"gpt_neox.layers.{layer}.{theirs}.{kind}"]
    check_logits(model, weights, reference)


@pytest.mark.parametrize(
    ("scaling", "settings"),
    [
        ("llama3:8:1:4:8192", {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
        ("llama3:32:1:4:8192", {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
        ("linear:4", {"factor": 4.0}),
    ],
)
def test_scaled_rotations_are_those_of_llama(scaling: str, settings: dict[str, Any]) -> None:
    """At the real sizes of Llama 3.1 and 3.2: theta 500,000, heads of width 128, contexts of 8,192 tokens extended."""
    kind = scaling.partition(":")[0]
    rope = {"rope_type": kind, "rope_theta": 500_000.0, "original_max_position_embeddings": 8192, **settings}
    config = LlamaConfig(
        hidden_size=256, num_attention_heads=2, head_dim=128, max_position_embeddings=65_536, rope_parameters=rope
    )
    frequencies = LlamaRotaryEmbedding(config).inv_freq  # (64,) float32
    angles = torch.tensor([0, 1, 100, 9_999])[:, None].double() * frequencies.double()
    table = rotary_table(10_000, 128, 500_000.0, scaling=scaling)[:, [0, 1, 100, 9_999], :64].double()
    torch.testing.assert_close(table, torch.stack([angles.cos(), angles.sin()]), rtol=0, atol=2e-3)
    torch.testing.assert_close(table[:, :2], torch.stack([angles.cos(), angles.sin()])[:, :2], rtol=0, atol=1e-6)
