"""ONNX files: the recorded function equals the model, piece by piece, and onnxruntime computes the same."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from transformer import DecoderOnlyTransformer
from transformer.interop.hf_check import MismatchError
from transformer.interop.onnx_export import CachedModel, compare_with_onnxruntime, empty_cache, write_onnx
from transformer.text import load_tokenizer

Model = Callable[..., DecoderOnlyTransformer]
RMS: dict[str, Any] = {"position": "rotary", "norm": "rmsnorm", "activation": "swiglu", "bias": False}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "alibi": {"position": "alibi", "activation": "relu", "bias": False},
    "fixed positions": {"position": "sinusoidal", "tie_embeddings": False},
    "llama": RMS | {"num_kv_heads": 2, "rope_scaling": "llama3:8.0:1.0:4.0:32"},
    "qwen3": RMS | {"qk_norm": "head", "head_width": 6, "qkv_bias": True},
    "olmo2": RMS | {"qk_norm": "all", "norm_position": "after"},
    "pythia": {"position": "rotary", "rotary_fraction": 0.5, "parallel_blocks": True},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_recorded_function_in_three_calls_gives_the_logits_of_one(tiny_model: Model, shape: str) -> None:
    model = tiny_model(**SHAPES[shape])
    tokens = torch.randint(0, 17, (2, 9))
    keys = values = empty_cache(model, 2).double()
    found = []
    for part in tokens.split([4, 1, 4], dim=1):
        logits, keys, values = CachedModel(model)(part, keys, values)
        found.append(logits)
    torch.testing.assert_close(torch.cat(found, dim=1), model(tokens), rtol=1e-9, atol=1e-9)
    assert keys.shape == (2, 2, model.config.kv_heads, 9, model.config.head_dim)


def test_the_packages_that_are_missing_are_named(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="`pip install onnx onnxscript`"):
        write_onnx(tiny_model(vocab_size=257), load_tokenizer("byte"), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_model_above_the_size_of_an_onnx_file_is_refused(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr("transformer.interop.onnx_export.LARGEST", 1_000)
    with pytest.raises(ValueError, match="an ONNX file holds 1,000: export with --to hf"):
        write_onnx(tiny_model(vocab_size=257), load_tokenizer("byte"), tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of PyTorch's exporter
def test_onnxruntime_gives_the_same_logits_and_greedy_text(tiny_model: Model, tmp_path: Path, shape: str) -> None:
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="writes or runs the files")
    import onnxruntime

    tokenizer = load_tokenizer("byte")
    model = tiny_model(dtype=torch.float32, **{**SHAPES[shape], "vocab_size": 257, "max_seq_len": 40})
    path = tmp_path / "model.onnx"
    write_onnx(model, tokenizer, path)
    found = compare_with_onnxruntime(path, model, tokenizer)
    assert found.difference < 1e-4
    assert found.tokens == 2 * 20
    stored = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["tokenizer.json"]
    assert json.loads(stored)["model"]["vocab"]["a"] == 97
    with torch.no_grad():
        model.final_norm.weight[0] += 0.1
    with pytest.raises(MismatchError, match="the logits of onnxruntime differ"):
        compare_with_onnxruntime(path, model, tokenizer)
