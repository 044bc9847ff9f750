"""Models in GGUF files against the models of `transformers` that they were made of, and numbers against `gguf`'s."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from transformer.interop.errors import SourceError
from transformer.interop.gguf_files import GgufFile
from transformer.interop.gguf_header import TENSOR_TYPES
from transformer.interop.gguf_numbers import CHUNK_BYTES, halves_as_pairs, llama3_divisors, shortest

gguf = pytest.importorskip("gguf", reason="the package gguf reads and writes the files")

SIZES: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "rope_theta": 5000.0,
}  # fmt: skip
MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, tie_word_embeddings=False)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SIZES, tie_word_embeddings=True)),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES, head_dim=12)),
    "olmo2": lambda: transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**SIZES)),
    "mpt": lambda: transformers.MptForCausalLM(
        transformers.MptConfig(vocab_size=40, d_model=32, n_layers=2, n_heads=4, max_seq_len=64)
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=64, n_inner=48)
    ),
}
"""A tiny random model of each architecture."""


def write(path: Path, kind: str, settings: Mapping[str, Any], tensors: Mapping[str, Any]) -> Path:
    """Writes a file with the `gguf` package: settings without the architecture's name, tensors as arrays."""
    writer = gguf.GGUFWriter(path, kind)
    for key, value in settings.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, bool: writer.add_bool}
        add[type(value)](key if key.startswith(("tokenizer.", "general.")) else f"{kind}.{key}", value)
    for name, values in tensors.items():
        array, kind_of_numbers = values if isinstance(values, tuple) else (values, None)
        writer.add_tensor(name, array, raw_dtype=kind_of_numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def settings_of(config: Any) -> dict[str, Any]:
    """llama.cpp's settings of a configuration of `transformers`."""
    if config.model_type == "gpt2":
        return {
            "context_length": config.n_positions, "embedding_length": config.n_embd, "block_count": config.n_layer,
            "feed_forward_length": config.n_inner, "attention.head_count": config.n_head,
            "attention.layer_norm_epsilon": config.layer_norm_epsilon,
        }  # fmt: skip
    if config.model_type == "mpt":
        return {
            "context_length": config.max_seq_len, "embedding_length": config.d_model, "block_count": config.n_layers,
            "feed_forward_length": 4 * config.d_model, "attention.head_count": config.n_heads,
            "attention.layer_norm_epsilon": config.layer_norm_epsilon, "attention.max_alibi_bias": 8.0,
        }  # fmt: skip
    return {
        "context_length": config.max_position_embeddings, "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers, "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads, "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps, "rope.freq_base": 5000.0,
        "attention.key_length": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
    }  # fmt: skip


def tensors_of(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The model's weights as llama.cpp's converter stores them, with the `gguf` package's own table of names."""
    kind, layers = model.config.model_type, model.config.num_hidden_layers
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    names, found = gguf.get_tensor_name_map(arch, layers), {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        array = weight.detach().numpy()
        if kind == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            array = halves_as_pairs(array, model.config.head_dim)
        if kind == "gpt2" and array.ndim == 2 and ".h." in name:
            array = array.T
        found[theirs] = np.ascontiguousarray(array)
    return found


def random_model(kind: str) -> Any:
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model


@pytest.mark.parametrize("kind", MODELS)
def test_settings_and_tensors_are_those_of_the_model(tmp_path: Path, kind: str) -> None:
    model = random_model(kind)
    file = GgufFile(write(tmp_path / "m.gguf", kind, settings_of(model.config), tensors_of(model)))
    config = {"head_dim": 8, "mlp_bias": False, "attention_bias": False, "rope_theta": 5000.0, **model.config.to_dict()}
    assert file.settings == {name: config[name] for name in file.settings}
    weights = {name: weight for name, weight in model.state_dict().items() if name in file.names}
    left = model.state_dict().keys() - weights.keys()
    assert left == ({"lm_head.weight"} if model.config.tie_word_embeddings else set())
    for name, weight in weights.items():
        assert torch.equal(file.tensor(name), weight), name


def blocks(kind: str, rows: int, columns: int) -> np.ndarray[Any, Any]:
    """Random bytes of a number format; scales are made finite."""
    label, numbers, size = next(found for found in TENSOR_TYPES.values() if found[0] == kind)
    content = np.random.default_rng(0).integers(0, 256, (rows, columns // numbers, size), dtype=np.uint8)
    halves = {"Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "Q4_1": [0, 2], "Q5_1": [0, 2]}.get(label, [0])
    scales = np.random.default_rng(1).normal(size=(rows, columns // numbers, 1)).astype("<f2").view(np.uint8)
    for at in halves:
        content[:, :, at : at + 2] = scales
    return content.reshape(rows, -1)


@pytest.mark.parametrize("kind", [name for name, *_ in TENSOR_TYPES.values() if name not in ("F32", "F16", "BF16")])
@pytest.mark.parametrize("chunk", [CHUNK_BYTES, 1000])
def test_a_quantised_matrix_is_read_as_gguf_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, chunk: int
) -> None:
    monkeypatch.setattr("transformer.interop.gguf_numbers.CHUNK_BYTES", chunk)
    raw, model = blocks(kind, 40, 256), tiny_gpt2(width=256)
    quantisation = gguf.GGMLQuantizationType[kind]
    tensors = tensors_of(model) | {"token_embd.weight": (raw, quantisation)}
    file = GgufFile(write(tmp_path / "m.gguf", "gpt2", settings_of(model.config), tensors))
    found = file.tensor("transformer.wte.weight")
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.from_numpy(gguf.dequantize(raw, quantisation)))
    assert file.dtype == torch.float32


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_a_matrix_that_is_not_quantised_keeps_its_format(tmp_path: Path, kind: str) -> None:
    model = tiny_gpt2(width=32)
    quantisation = gguf.GGMLQuantizationType[kind]
    tensors: dict[str, Any] = {
        name: (gguf.quantize(array, quantisation), quantisation) if array.ndim == 2 else array
        for name, array in tensors_of(model).items()
    }
    file = GgufFile(write(tmp_path / "m.gguf", "gpt2", settings_of(model.config), tensors))
    assert file.dtype == {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind]
    for name in file.names:
        stored = model.state_dict()[name]
        if stored.ndim == 2:
            stored = stored.to(file.dtype)
        assert torch.equal(file.tensor(name), stored)


def test_quantised_queries_and_keys_are_put_in_order(tmp_path: Path) -> None:
    model, kind = random_model("llama"), gguf.GGMLQuantizationType.Q8_0
    arrays = tensors_of(model)
    tensors: dict[str, Any] = {
        name: (gguf.quantize(array, kind), kind) if ".attn_" in name and array.ndim == 2 else array
        for name, array in arrays.items()
    }
    file = GgufFile(write(tmp_path / "m.gguf", "llama", settings_of(model.config), tensors))
    for name in ("model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.k_proj.weight"):
        wanted = gguf.dequantize(gguf.quantize(model.state_dict()[name].numpy(), kind), kind)
        assert torch.equal(file.tensor(name), torch.from_numpy(wanted))


def tiny_gpt2(width: int) -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=40, n_embd=width, n_layer=1, n_head=4, n_positions=8, n_inner=32)
    return transformers.GPT2LMHeadModel(config)


def test_llama_3s_scaling_is_recovered_from_its_divisors(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    parameters = {**scaling, "rope_theta": 500_000.0}
    sizes = {**SIZES, "hidden_size": 128, "max_position_embeddings": 131_072, "rope_parameters": parameters}
    del sizes["rope_theta"]
    config = transformers.LlamaConfig(**sizes)
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    plain = 500_000.0 ** (-torch.arange(0, 32, 2) / 32)
    divisors = (plain / rotary.inv_freq).numpy()
    assert np.allclose(llama3_divisors(32, 500_000.0, scaling), divisors, rtol=1e-5)
    tensors = {name: np.zeros(array.shape, "f4") for name, array in meta_tensors(model).items()}
    settings = settings_of(config) | {"rope.freq_base": 500_000.0}
    path = write(tmp_path / "m.gguf", "llama", settings, {**tensors, "rope_freqs.weight": divisors})
    assert GgufFile(path).settings["rope_scaling"] == scaling
    path = write(tmp_path / "m.gguf", "llama", settings, {**tensors, "rope_freqs.weight": divisors[::-1].copy()})
    with pytest.raises(SourceError, match="not Llama 3's scaling"):
        GgufFile(path)


def meta_tensors(model: Any) -> dict[str, Tensor]:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    return {
        names.get_name(name, try_suffixes=(".weight",)): weight
        for name, weight in model.state_dict().items()
        if name != "lm_head.weight"
    }


def test_linear_scaling_is_read(tmp_path: Path) -> None:
    model = random_model("llama")
    settings = settings_of(model.config) | {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    file = GgufFile(write(tmp_path / "m.gguf", "llama", settings, tensors_of(model)))
    assert file.settings["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}


def test_an_output_projection_that_repeats_the_token_table_is_tied(tmp_path: Path) -> None:
    model = tiny_gpt2(width=32)
    tensors = tensors_of(model)
    tensors["output.weight"] = tensors["token_embd.weight"].copy()
    file = GgufFile(write(tmp_path / "m.gguf", "gpt2", settings_of(model.config), tensors))
    assert file.settings["tie_word_embeddings"] is True
    assert "lm_head.weight" not in file.names
    tensors["output.weight"][3, 3] += 1
    file = GgufFile(write(tmp_path / "m.gguf", "gpt2", settings_of(model.config), tensors))
    assert file.settings["tie_word_embeddings"] is False
    assert "lm_head.weight" in file.names


OTHER_MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "experts": ({"expert_count": 8}, "mixture of experts"),
    "a window": ({"attention.sliding_window": 16}, "window of 16 of 64 tokens is not supported: import it with --max"),
    "YaRN": ({"rope.scaling.type": "yarn"}, "'yarn' is not supported"),
    "both directions": ({"attention.causal": False}, "both directions"),
    "partial rotation": ({"rope.dimension_count": 4}, "heads with 8 numbers"),
    "a setting of the future": ({"logit_scale": 0.5}, "llama.logit_scale is not supported"),
    "no heads": ({"attention.head_count": 0}, "llama.attention.head_count is 0"),
    "more blocks than tensors": ({"block_count": 2**31 - 1}, "the last block with tensors is 1"),
    "a wider model than its tensors": ({"embedding_length": 64, "attention.key_length": 8}, "the settings imply"),
    "a text for a number": ({"block_count": "2"}, "wrong type"),
    "infinite epsilon": ({"attention.layer_norm_rms_epsilon": float("inf")}, "epsilon is inf"),
    "part of a split model": ({"general.architecture": "llama", "split.count": 3}, "one part of a split model"),
}


@pytest.mark.parametrize("case", OTHER_MODELS)
def test_a_model_that_cannot_be_computed_is_one_line(tmp_path: Path, case: str) -> None:
    changed, reason = OTHER_MODELS[case]
    model = random_model("llama")
    path = tmp_path / "m.gguf"
    if "split.count" in changed:
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_uint32("split.count", 3)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    else:
        write(path, "llama", {**settings_of(model.config), **changed}, tensors_of(model))
    with pytest.raises(SourceError, match=reason) as caught:
        GgufFile(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_tensors_that_are_missing_strange_or_of_another_shape_are_one_line(tmp_path: Path) -> None:
    model = random_model("llama")
    tensors, settings = tensors_of(model), settings_of(model.config)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"blk.1.attn_q.weight": None}, "blk.1.attn_q.weight is missing"),
        ({"token_embd.weight": None}, "token_embd.weight is missing"),
        ({"blk.0.ffn_gate_exps.weight": np.zeros((2, 2), "f4")}, "belongs to no part"),
        ({"blk.0.attn_k.weight": np.zeros((32, 32), "f4")}, r"shape \(32, 32\), and the settings imply \(16, 32\)"),
        ({"blk.0.attn_norm.weight": np.zeros((31,), "f4")}, r"shape \(31,\)"),
    ]
    for change, reason in changes:
        left = {name: array for name, array in {**tensors, **change}.items() if array is not None}
        with pytest.raises(SourceError, match=reason):
            GgufFile(write(tmp_path / "m.gguf", "llama", settings, left))


def test_an_unknown_architecture_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", "gemma3", {"block_count": 1}, {})
    with pytest.raises(SourceError, match="architecture 'gemma3' is not supported; supported: llama, qwen2"):
        GgufFile(path)


def test_without_the_package_a_file_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(SourceError, match="cannot be read without the package gguf: type `uv pip install"):
        GgufFile(tmp_path / "m.gguf")


def test_a_float32_is_written_as_its_shortest_decimal() -> None:
    assert shortest(float(np.float32(1e-5))) == 1e-5
    assert shortest(float(np.float32(500_000.0))) == 500_000.0
