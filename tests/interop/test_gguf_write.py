"""Models written as GGUF files: read back unchanged, and run by llama.cpp with the same text."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from full_disk import files_of_at_most
from llama_cpp import LlamaCpp
from transformer.config import ModelConfig
from transformer.interop.errors import SourceError
from transformer.interop.families import hf_weights, model_config, read_weights
from transformer.interop.gguf_files import GgufFile
from transformer.interop.gguf_write import GELU_NOTE, write_gguf
from transformer.model import DecoderOnlyTransformer
from transformer.text import ByteTokenizer

gguf = pytest.importorskip("gguf", reason="the package gguf reads and writes the files")

RMS: dict[str, Any] = {"position": "rotary", "norm": "rmsnorm", "activation": "swiglu", "bias": False}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"activation": "gelu_tanh"},
    "gpt2 untied, sinusoids": {"activation": "gelu_tanh", "tie_embeddings": False, "position": "sinusoidal"},
    "mpt": {"position": "alibi", "bias": False, "d_ff": 256},
    "mpt, twelve heads": {"position": "alibi", "bias": False, "d_model": 96, "num_heads": 12, "d_ff": 384},
    "llama": RMS | {"num_kv_heads": 2},
    "llama with wide heads": RMS | {"head_width": 24, "tie_embeddings": False},
    "llama with biases": RMS | {"bias": True},
    "llama, linear scaling": RMS | {"rope_scaling": "linear:4.0"},
    "llama 3's scaling": RMS | {"rope_scaling": "llama3:8.0:1.0:4.0:8192", "rope_theta": 500_000.0},
    "qwen2": RMS | {"qkv_bias": True, "num_kv_heads": 1},
    "qwen3": RMS | {"qk_norm": "head", "head_width": 32},
    "olmo2": RMS | {"qk_norm": "all", "norm_position": "after", "num_kv_heads": 2},
}
PROMPT = list(b"To be, or not to be")


@cache
def model_of(shape: str) -> DecoderOnlyTransformer:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 257, "d_model": 64, "num_heads": 4, "num_layers": 2, "d_ff": 96}
    settings = sizes | {"max_seq_len": 64, "dropout": 0.0} | SHAPES[shape]
    model = DecoderOnlyTransformer(ModelConfig(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.15)
    return model


def read_back(path: Path) -> DecoderOnlyTransformer:
    file = GgufFile(path)
    model = DecoderOnlyTransformer(model_config(file.settings)).eval()
    read_weights(model, file.settings, file.tensor, file.names)
    return model


@torch.no_grad()
def log_probabilities(model: DecoderOnlyTransformer) -> torch.Tensor:
    return model(torch.tensor([PROMPT]))[0, -1].log_softmax(-1)


@pytest.mark.parametrize("shape", SHAPES)
def test_llama_cpp_continues_a_text_as_this_model_does(tmp_path: Path, shape: str) -> None:
    model, path = model_of(shape), tmp_path / "m.gguf"
    assert write_gguf(model, ByteTokenizer(), path, "f32") == ([GELU_NOTE] if shape.startswith("mpt") else [])
    theirs = LlamaCpp(path, context=64)
    ours = model.generate(torch.tensor([PROMPT]), max_new_tokens=24)[0, len(PROMPT) :].tolist()
    assert theirs.greedy(PROMPT, 24) == ours
    found, wanted = theirs.log_probabilities(PROMPT, 257), log_probabilities(model)
    # llama.cpp takes GELU from a table of float16 numbers
    tolerance = 5e-3 if shape.startswith(("gpt2", "mpt")) else 1e-4
    assert len(found) == 257
    torch.testing.assert_close(torch.tensor([found[i] for i in range(257)]), wanted, atol=tolerance, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_is_read_back_bit_for_bit(tmp_path: Path, shape: str) -> None:
    model, path = model_of(shape), tmp_path / "m.gguf"
    write_gguf(model, ByteTokenizer(), path, "f32")
    again = read_back(path)
    assert again.config.tie_embeddings == model.config.tie_embeddings
    written, read = dict(hf_weights(model)), dict(hf_weights(again))
    assert written.keys() == read.keys()
    assert all(torch.equal(written[name], read[name]) for name in written)
    torch.testing.assert_close(log_probabilities(again), log_probabilities(model), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "tolerance"), [("f16", 0.02), ("q8_0", 0.3), ("q4_0", 0.5)])
@pytest.mark.parametrize("shape", ["gpt2", "llama", "qwen3"])
def test_a_smaller_format_has_the_numbers_of_gguf_and_runs_in_llama_cpp(
    tmp_path: Path, shape: str, kind: Any, tolerance: float
) -> None:
    model, path = model_of(shape), tmp_path / "m.gguf"
    write_gguf(model, ByteTokenizer(), path, kind)
    again, labels = read_back(path), {"token_embd.weight": "Q8_0"} if kind == "q4_0" else {}
    for name, tensor in GgufFile(path).header.tensors.items():
        is_vector = len(tensor.shape) == 1 or name == "position_embd.weight"
        assert tensor.kind == ("F32" if is_vector else labels.get(name, kind.upper())), name
    label = gguf.GGMLQuantizationType[kind.upper()]
    wanted = gguf.dequantize(gguf.quantize(model.layers[0].feedforward.down.weight.detach().numpy(), label), label)
    assert np.array_equal(again.layers[0].feedforward.down.weight.detach().numpy(), wanted)
    # llama.cpp rounds the vectors too, to float16 or blocks of 8 bits
    found, ours = LlamaCpp(path, context=64).log_probabilities(PROMPT, 257), log_probabilities(again)
    torch.testing.assert_close(torch.tensor([found[i] for i in range(257)]), ours, atol=tolerance, rtol=0)


def test_rows_that_are_no_whole_blocks_stay_float16(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    config = ModelConfig(vocab_size=257, d_model=32, num_heads=2, num_layers=1, d_ff=40, max_seq_len=16)
    write_gguf(DecoderOnlyTransformer(config), ByteTokenizer(), path, "q8_0")
    kinds = {name: tensor.kind for name, tensor in GgufFile(path).header.tensors.items()}
    assert (kinds["blk.0.ffn_down.weight"], kinds["blk.0.ffn_up.weight"]) == ("F16", "Q8_0")


def test_exact_gelu_is_named_as_different(tmp_path: Path) -> None:
    config = ModelConfig(vocab_size=257, d_model=32, num_heads=2, num_layers=1, d_ff=32, max_seq_len=16)
    assert write_gguf(DecoderOnlyTransformer(config), ByteTokenizer(), tmp_path / "m.gguf") == [GELU_NOTE]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "relu": ({"activation": "relu"}, "computes GELU, and this model has activation=relu"),
    "alibi": ({"position": "alibi"}, "no architecture of transformers computes position='alibi'"),
    "rotary layernorm": ({"position": "rotary"}, "architecture gpt_neox cannot be written as GGUF"),
    "scaled qwen": (RMS | {"qkv_bias": True, "rope_scaling": "llama3:8.0:1.0:4.0:16"}, "qwen2 has no rope_scaling"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_llama_cpp_cannot_run_is_refused_and_nothing_written(tmp_path: Path, case: str) -> None:
    settings, reason = REFUSED[case]
    sizes: dict[str, Any] = {"vocab_size": 257, "d_model": 32, "num_heads": 2, "num_layers": 1, "d_ff": 32}
    model = DecoderOnlyTransformer(ModelConfig(**sizes, max_seq_len=16, **settings))
    with pytest.raises(ValueError, match=reason):
        write_gguf(model, ByteTokenizer(), tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_and_a_missing_package_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="'q5_1' is not supported; supported: f32, f16, q8_0, q4_0"):
        write_gguf(model_of("gpt2"), ByteTokenizer(), tmp_path / "m.gguf", "q5_1")  # type: ignore[arg-type]
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(SourceError, match="cannot be written without the package gguf"):
        write_gguf(model_of("gpt2"), ByteTokenizer(), tmp_path / "m.gguf")


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full)
    with pytest.raises(OSError, match="No space left"):
        write_gguf(model_of("gpt2"), ByteTokenizer(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_clear_line_and_leaves_no_file(tmp_path: Path) -> None:
    """NumPy reports a full disk without a number; the message was "[Errno None] None"."""
    with files_of_at_most(20_000), pytest.raises(OSError, match=r"could be written .*written.*model\.gguf"):
        write_gguf(model_of("llama"), ByteTokenizer(), tmp_path / "model.gguf", "f32")
    assert list(tmp_path.iterdir()) == []
