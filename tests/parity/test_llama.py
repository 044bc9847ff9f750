"""Our model with rotary positions, RMSNorm, SwiGLU and grouped queries computes what transformers' Llama computes."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from transformer import DecoderOnlyTransformer, KVCache, ModelConfig
from transformer.embeddings import frequencies, rotary_table, scale

TOKENS = torch.randint(0, 61, (2, 12), generator=torch.Generator().manual_seed(0))
CASES = [(4, True), (2, True), (2, False), (1, False)]  # key and value heads, tied


def config_of(kv_heads: int, tied: bool) -> ModelConfig:
    return ModelConfig(
        vocab_size=61, d_model=32, num_heads=4, num_layers=3, d_ff=40, max_seq_len=16, dropout=0.0,
        num_kv_heads=kv_heads, position="rotary", norm="rmsnorm", norm_eps=1e-6, activation="swiglu", bias=False,
        tie_embeddings=tied, rope_theta=500.0,
    )  # fmt: skip


@functools.cache
def theirs(kv_heads: int, tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=61, hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=kv_heads, max_position_embeddings=16, rms_norm_eps=1e-6, tie_word_embeddings=tied,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0}, bos_token_id=0, eos_token_id=0,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


@functools.cache
def ours(kv_heads: int, tied: bool) -> DecoderOnlyTransformer:
    source = theirs(kv_heads, tied).state_dict()
    weights = {
        "embeddings.token.weight": source["model.embed_tokens.weight"],
        "head.weight": source["model.embed_tokens.weight" if tied else "lm_head.weight"],
        "final_norm.weight": source["model.norm.weight"],
    }
    for layer in range(3):
        block, their_block = f"blocks.{layer}", f"model.layers.{layer}"
        parts = [source[f"{their_block}.self_attn.{part}_proj.weight"] for part in "qkv"]
        weights[f"{block}.attention.qkv.weight"] = torch.cat(parts)
        for name, their_name in {
            "attention_norm": "input_layernorm", "attention.out": "self_attn.o_proj",
            "feedforward_norm": "post_attention_layernorm", "feedforward.gate": "mlp.gate_proj",
            "feedforward.up": "mlp.up_proj", "feedforward.down": "mlp.down_proj",
        }.items():  # fmt: skip
            weights[f"{block}.{name}.weight"] = source[f"{their_block}.{their_name}.weight"]
    model = DecoderOnlyTransformer(config_of(kv_heads, tied)).eval()
    model.load_state_dict(weights)
    return model


@pytest.mark.parametrize(("kv_heads", "tied"), CASES)
def test_the_models_have_equally_many_parameters(kv_heads: int, tied: bool) -> None:
    counts = [sum(p.numel() for p in model.parameters()) for model in (ours(kv_heads, tied), theirs(kv_heads, tied))]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(("kv_heads", "tied"), CASES)
def test_logits_agree(kv_heads: int, tied: bool) -> None:
    reference = theirs(kv_heads, tied)(TOKENS).logits
    torch.testing.assert_close(ours(kv_heads, tied)(TOKENS), reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kv_heads", "tied"), CASES)
def test_the_loss_and_its_gradients_agree(kv_heads: int, tied: bool) -> None:
    model, reference = ours(kv_heads, tied), theirs(kv_heads, tied)
    nats, count = model.loss(TOKENS[:, :-1], TOKENS[:, 1:])
    loss = reference(TOKENS, labels=TOKENS).loss  # shifts the labels itself
    torch.testing.assert_close(nats / count, loss, rtol=1e-5, atol=1e-5)
    found = dict(zip((n for n, _ in model.named_parameters()),
                     torch.autograd.grad(nats / count, list(model.parameters())), strict=True))  # fmt: skip
    expected = dict(zip((n for n, _ in reference.named_parameters()),
                        torch.autograd.grad(loss, list(reference.parameters())), strict=True))  # fmt: skip
    pairs = {
        "embeddings.token.weight": "model.embed_tokens.weight", "final_norm.weight": "model.norm.weight",
        "blocks.0.attention_norm.weight": "model.layers.0.input_layernorm.weight",
        "blocks.1.attention.out.weight": "model.layers.1.self_attn.o_proj.weight",
        "blocks.2.feedforward.gate.weight": "model.layers.2.mlp.gate_proj.weight",
        "blocks.0.feedforward.up.weight": "model.layers.0.mlp.up_proj.weight",
        "blocks.1.feedforward.down.weight": "model.layers.1.mlp.down_proj.weight",
    }  # fmt: skip
    if not tied:
        pairs["head.weight"] = "lm_head.weight"
    for name, their_name in pairs.items():
        torch.testing.assert_close(found[name], expected[their_name], rtol=1e-4, atol=1e-4, msg=name)
    qkv = torch.cat([expected[f"model.layers.0.self_attn.{part}_proj.weight"] for part in "qkv"])
    torch.testing.assert_close(found["blocks.0.attention.qkv.weight"], qkv, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kv_heads", "tied"), CASES)
def test_decoding_with_the_cache_agrees(kv_heads: int, tied: bool) -> None:
    model, reference = ours(kv_heads, tied), theirs(kv_heads, tied)
    cache = KVCache.allocate(model.config, batch_size=2)
    with torch.no_grad():
        call = reference(TOKENS[:, :5], use_cache=True)
        torch.testing.assert_close(model(TOKENS[:, :5], cache), call.logits, rtol=1e-5, atol=1e-5)
        for position in range(5, 12):
            token = TOKENS[:, position : position + 1]
            call = reference(token, past_key_values=call.past_key_values, use_cache=True)
            torch.testing.assert_close(model(token, cache), call.logits, rtol=1e-5, atol=1e-5)


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
    ours = scale(frequencies(128, 500_000.0), scaling)  # (64,): the angle of each pair at position 1
    torch.testing.assert_close(ours.float(), LlamaRotaryEmbedding(config).inv_freq, rtol=1e-6, atol=0)
    angles = 9_999 * ours
    expected = torch.stack([angles.cos(), angles.sin()]).float().repeat(1, 2)
    torch.testing.assert_close(rotary_table(10_000, 128, 500_000.0, scaling=scaling)[:, 9_999], expected)
