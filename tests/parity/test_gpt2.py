"""Our model with GPT-2's settings computes what transformers' GPT2LMHeadModel computes."""

from __future__ import annotations

import functools

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from transformer import DecoderOnlyTransformer, KVCache, ModelConfig

TOKENS = torch.randint(0, 61, (2, 12), generator=torch.Generator().manual_seed(0))
CONFIG = ModelConfig(
    vocab_size=61, d_model=32, num_heads=4, num_layers=3, d_ff=48, max_seq_len=16, dropout=0.0, activation="gelu_tanh"
)


@functools.cache
def theirs() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=61, n_embd=32, n_head=4, n_layer=3, n_inner=48, n_positions=16, activation_function="gelu_new",
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)  # biases and norms too, and far from 0 and 1
    return model


@functools.cache
def ours() -> DecoderOnlyTransformer:
    source = theirs().state_dict()
    weights = {
        "embeddings.token.weight": source["transformer.wte.weight"],
        "embeddings.position.weight": source["transformer.wpe.weight"],
        "head.weight": source["transformer.wte.weight"],
        "final_norm.weight": source["transformer.ln_f.weight"],
        "final_norm.bias": source["transformer.ln_f.bias"],
    }
    names = {
        "attention_norm": "ln_1", "attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj",
        "feedforward_norm": "ln_2", "feedforward.up": "mlp.c_fc", "feedforward.down": "mlp.c_proj",
    }  # fmt: skip
    for layer in range(3):
        for name, their_name in names.items():
            weight = source[f"transformer.h.{layer}.{their_name}.weight"]
            # GPT-2's Conv1D keeps its matrices as (inputs, outputs).
            weights[f"blocks.{layer}.{name}.weight"] = weight if "norm" in name else weight.T
            weights[f"blocks.{layer}.{name}.bias"] = source[f"transformer.h.{layer}.{their_name}.bias"]
    model = DecoderOnlyTransformer(CONFIG).eval()
    model.load_state_dict(weights)
    return model


def test_the_models_have_equally_many_parameters() -> None:
    assert sum(p.numel() for p in ours().parameters()) == sum(p.numel() for p in theirs().parameters())


def test_logits_agree() -> None:
    torch.testing.assert_close(ours()(TOKENS), theirs()(TOKENS).logits, rtol=1e-5, atol=1e-5)


def test_the_loss_and_its_gradients_agree() -> None:
    nats, count = ours().loss(TOKENS[:, :-1], TOKENS[:, 1:])
    loss = theirs()(TOKENS, labels=TOKENS).loss  # shifts the labels itself
    torch.testing.assert_close(nats / count, loss, rtol=1e-5, atol=1e-5)
    mine = torch.autograd.grad(nats / count, list(ours().parameters()))
    reference = dict(zip((n for n, _ in theirs().named_parameters()),
                         torch.autograd.grad(loss, list(theirs().parameters())), strict=True))  # fmt: skip
    found = dict(zip((n for n, _ in ours().named_parameters()), mine, strict=True))
    pairs = [
        ("embeddings.token.weight", "wte.weight"), ("embeddings.position.weight", "wpe.weight"),
        ("final_norm.weight", "ln_f.weight"), ("final_norm.bias", "ln_f.bias"),
        ("blocks.0.attention_norm.weight", "h.0.ln_1.weight"), ("blocks.2.feedforward_norm.bias", "h.2.ln_2.bias"),
        ("blocks.0.attention.qkv.weight", "h.0.attn.c_attn.weight"),
        ("blocks.1.attention.qkv.bias", "h.1.attn.c_attn.bias"),
        ("blocks.1.attention.out.weight", "h.1.attn.c_proj.weight"),
        ("blocks.2.feedforward.up.weight", "h.2.mlp.c_fc.weight"),
        ("blocks.0.feedforward.down.weight", "h.0.mlp.c_proj.weight"),
    ]  # fmt: skip
    for name, their_name in pairs:
        gradient = reference[f"transformer.{their_name}"]
        if gradient.ndim == 2 and name.startswith("blocks"):
            gradient = gradient.T
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("prefill", [1, 5])
def test_decoding_with_the_cache_agrees(prefill: int) -> None:
    cache = KVCache.allocate(CONFIG, batch_size=2)
    with torch.no_grad():
        call = theirs()(TOKENS[:, :prefill], use_cache=True)
        torch.testing.assert_close(ours()(TOKENS[:, :prefill], cache), call.logits, rtol=1e-5, atol=1e-5)
        for position in range(prefill, 12):
            token = TOKENS[:, position : position + 1]
            call = theirs()(token, past_key_values=call.past_key_values, use_cache=True)
            torch.testing.assert_close(ours()(token, cache), call.logits, rtol=1e-5, atol=1e-5)


def test_greedy_text_agrees() -> None:
    prompt = TOKENS[:, :4]
    reference = theirs().generate(
        prompt,
        max_length=16,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        attention_mask=torch.ones_like(prompt),
    )
    assert torch.equal(ours().generate(prompt, max_length=16), reference)
