"""The browser's forward pass computes the same logits as PyTorch on the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Page

from page.browsing import LOGITS, ROOT, compute
from transformer.interop.lesson_page import dequantised_model

Exported = Callable[..., dict[str, Any]]
SETTINGS = [
    {},
    {"position": "sinusoidal"},
    {"position": "rotary"},
    {"position": "alibi"},
    {"position": "alibi", "d_model": 18, "num_heads": 6},
    {"norm": "rmsnorm"},
    {"activation": "gelu_tanh"},
    {"activation": "relu"},
    {"activation": "swiglu", "bias": False},
    {"num_kv_heads": 2, "tie_embeddings": False},
    {"head_width": 4, "bias": False, "qkv_bias": True},
    {"position": "rotary", "norm": "rmsnorm", "activation": "swiglu", "num_kv_heads": 1, "rope_theta": 500.0},
]
TOKENS = [82, 79, 256, 0, 82, 79, 10, 66, 117]

RUN = """([exported, tokens]) => {
  const model = GPT.load(exported);
  const C = model.config.d_model;
  const trace = model.run(tokens);
  const cache = model.start();
  const stream = trace.layers.at(-1).output;
  return {
    logits: tokens.map((_, t) => Array.from(trace.logits(t))),
    steps: tokens.map((token) => Array.from(model.step(cache, token))),
    cached: { length: cache.length, bytes: cache.bytes },
    weights: trace.layers.map((layer) => Array.from(layer.weights)),
    lens: tokens.map((_, t) => Array.from(model.logitsFrom(stream.subarray(t * C, (t + 1) * C)))),
  };
}"""

SHAPES = """([exported, tokens]) => {
  const shape = (value) => (value && value.shape) || value;
  const shapes = (found) => Object.fromEntries(Object.keys(found).map((name) => [name, shape(found[name])]));
  const { layers, ...rest } = GPT.load(exported).run(tokens);
  return { layer: shapes(layers[1]), ...shapes(rest), layers: layers.length };
}"""


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@torch.no_grad()
def test_every_kind_of_model_gives_pytorchs_logits(settings: dict[str, Any], exported: Exported, engine: Page) -> None:
    exported_model = exported(**settings)
    found = compute(engine, RUN, [exported_model, TOKENS])
    model = dequantised_model(exported_model)
    tokens = torch.tensor([TOKENS])
    torch.testing.assert_close(torch.tensor(found["logits"]), model(tokens)[0], rtol=0, atol=1e-4)
    assert found["steps"] == found["logits"]  # one token at a time with the cache, bit for bit
    assert found["lens"] == found["logits"]  # the logit lens after the last block
    config = model.config
    per_token = config.num_layers * 2 * config.kv_heads * config.head_dim * 4
    assert found["cached"] == {"length": len(TOKENS), "bytes": len(TOKENS) * per_token}
    for layer, weights in zip(found["weights"], model.attention_weights(tokens), strict=True):
        torch.testing.assert_close(torch.tensor(layer), weights.flatten(), rtol=0, atol=1e-5)


def test_the_trace_has_the_documented_shapes(exported: Exported, engine: Page) -> None:
    shapes = compute(engine, SHAPES, [exported(num_kv_heads=2), TOKENS])
    T, C, H, K, D, d_ff = len(TOKENS), 16, 4, 2, 4, 24
    stream = ["input", "normed1", "gathered", "attentionOut", "afterAttention", "normed2", "feedForwardOut", "output"]
    assert shapes == {
        "tokens": TOKENS, "T": T, "past": 0, "layers": 2,
        **{name: [T, C] for name in ("tokenVectors", "positionVectors", "embedded", "final")},
        "layer": {
            **{name: [T, C] for name in stream},
            "q": [H, T, D], "k": [K, T, D], "v": [K, T, D], "unrotated": None,
            "scores": [H, T, T], "weights": [H, T, T],
            "preActivation": [T, d_ff], "gated": None, "hidden": [T, d_ff],
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([257], "token 257 is outside this model's 0 to 256"),
        ([1.5], "token 1.5 is outside"),
        ([1] * 13, "13 tokens do not fit the context of max_seq_len=12"),
    ],
)
def test_invalid_tokens_and_long_texts_are_errors(
    tokens: list[float], message: str, exported: Exported, engine: Page
) -> None:
    assert message in compute(engine, LOGITS, [exported(), tokens])


def test_an_export_of_another_format_is_refused(exported: Exported, engine: Page) -> None:
    assert "model of format 99, not 1" in compute(engine, LOGITS, [{**exported(), "format": 99}, TOKENS])


@torch.no_grad()
def test_the_shipped_model_gives_pytorchs_logits(opened: Callable[[Path], tuple[Page, list[str]]]) -> None:
    page, _ = opened(ROOT / "index.html")
    model = dequantised_model(compute(page, "() => GPT.exported"))
    for prompt in ["ROMEO:", "To be, or not to be: that is the question.", "  \n\n", "\U0001f600 Ünïcode \ud55c\uad6d"]:
        tokens = compute(page, "text => GPT.load(GPT.exported).tokenizer.encode(text)", prompt)
        found = torch.tensor(compute(page, LOGITS, [None, tokens]))
        torch.testing.assert_close(found, model(torch.tensor([tokens]))[0], rtol=0, atol=1e-4)
