"""Writes a model as a GGUF file, which llama.cpp and the programs built on it run.

The weights go from the model to Hugging Face's names (families.py) and from there to GGUF's, one tensor at a time:
matrices in the chosen number format, norms and biases in float32. In llama.cpp's `llama`, the rows of queries and keys
are in another order (gguf_names.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from torch import Tensor

from transformer.config import ModelConfig
from transformer.interop.families import hf_settings, hf_weights
from transformer.interop.gguf_names import ARCHITECTURES
from transformer.interop.gguf_numbers import halves_as_pairs, llama3_divisors, require_gguf
from transformer.interop.gguf_vocabulary import vocabulary
from transformer.model import DecoderOnlyTransformer
from transformer.text import Tokenizer
from transformer.text.tokenizer import replace_lone_surrogates
from transformer.training.files import replacing

if TYPE_CHECKING:
    import gguf

Kind = Literal["f32", "f16", "q8_0", "q4_0"]
"""Number formats of matrices: 32, 16, 8.5 and 4.5 bits for each number."""
FILE_TYPES: dict[Kind, int] = {"f32": 0, "f16": 1, "q8_0": 7, "q4_0": 2}
BLOCK = 32
"""Numbers in a block of q8_0 and q4_0. A matrix whose rows are not whole blocks is written as f16."""
GELU_NOTE = "llama.cpp computes GELU by its approximation with tanh (activation=gelu_tanh), this model exactly"


def write_gguf(
    model: DecoderOnlyTransformer,
    tokenizer: Tokenizer,
    path: Path | str,
    kind: Kind = "f16",
    about: Mapping[str, str] | None = None,
) -> list[str]:
    """Writes the model and its encoding, whole or not at all. Returns sentences on what differs in llama.cpp.

    With q4_0 the token table and the output projection are q8_0, as they suffer most. `about`: name and licence.
    Raises ValueError for a model or an encoding that llama.cpp cannot run, and OSError.
    """
    require_gguf(f"{path} cannot be written")
    import gguf

    if kind not in get_args(Kind):
        raise ValueError(f"the number format {kind!r} is not supported; supported: {', '.join(get_args(Kind))}")
    family = _family(model.config)
    words = vocabulary(tokenizer, model.config.vocab_size)
    with replacing(Path(path)) as file, closing(gguf.GGUFWriter(file.name, family)) as writer:
        _add_settings(writer, model.config, family, {"name": Path(path).stem, **(about or {})})
        writer.add_file_type(FILE_TYPES[kind])
        words.write(writer)
        for name, tensor in _weights(model, family):
            label = _format(name, tensor, kind)
            size = gguf.quant_shape_to_byte_shape(tensor.shape, label)
            writer.add_tensor_info(name, size, np.dtype(np.uint8), int(np.prod(size)), raw_dtype=label)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in _weights(model, family):
            writer.write_tensor_data(_quantised(tensor, _format(name, tensor, kind)))
    gelu = GELU_NOTE if model.config.activation == "gelu" else None
    return [note for note in (words.note, gelu) if note]


def _family(config: ModelConfig) -> str:
    """Returns llama.cpp's architecture for a shape. Raises ValueError if there is none."""
    family: str = hf_settings(config, "float32")["model_type"]
    if family not in ARCHITECTURES:
        raise ValueError(
            f"a model of the architecture {family} cannot be written as GGUF; {', '.join(ARCHITECTURES)} can"
        )
    if family == "gpt2" and config.activation == "relu":
        raise ValueError("llama.cpp's gpt2 computes GELU, and this model has activation=relu")
    if config.rope_scaling.startswith("llama3") and family != "llama":
        raise ValueError(f"llama.cpp's {family} has no rope_scaling={config.rope_scaling}")
    return family


def _add_settings(writer: gguf.GGUFWriter, config: ModelConfig, family: str, about: Mapping[str, str]) -> None:
    writer.add_name(replace_lone_surrogates(about["name"]))  # of a file whose name is not UTF-8
    if licence := about.get("licence"):
        writer.add_license(licence)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.num_heads)
    writer.add_vocab_size(config.vocab_size)
    if family in ("gpt2", "mpt"):
        writer.add_layer_norm_eps(config.norm_eps)
        if family == "mpt":
            writer.add_max_alibi_bias(8.0)
        return
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    scaling = hf_settings(config, "float32")["rope_scaling"]
    if scaling and scaling["rope_type"] == "linear":
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])


def _weights(model: DecoderOnlyTransformer, family: str) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Yields each tensor by GGUF's name, float32."""
    architecture, config = ARCHITECTURES[family], model.config
    scaling = hf_settings(config, "float32").get("rope_scaling")
    if scaling and scaling["rope_type"] == "llama3":
        yield "rope_freqs.weight", llama3_divisors(config.head_dim, config.rope_theta, scaling).astype(np.float32)
    for name, tensor in hf_weights(model):
        theirs = architecture.to_gguf(name)
        stem = theirs.split(".")[-2]
        array = _array(tensor.T if stem in architecture.transposed and tensor.ndim == 2 else tensor)
        if architecture.pairs == "neighbours" and stem in ("attn_q", "attn_k"):
            array = halves_as_pairs(array.reshape(len(array), -1), config.head_dim).reshape(array.shape)
        yield theirs, array
        if stem == "token_embd" and config.tie_embeddings and family == "olmo2":  # which wants both
            yield "output.weight", array


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = tensor.detach().float().cpu().contiguous().numpy()
    return array


def _format(name: str, tensor: np.ndarray[Any, Any], kind: Kind) -> gguf.GGMLQuantizationType:
    """Returns the number format of a tensor."""
    import gguf

    if tensor.ndim == 1 or name == "position_embd.weight":
        return gguf.GGMLQuantizationType.F32
    if kind in ("q8_0", "q4_0") and tensor.shape[-1] % BLOCK:
        return gguf.GGMLQuantizationType.F16
    if kind == "q4_0" and name in ("token_embd.weight", "output.weight"):
        return gguf.GGMLQuantizationType.Q8_0
    return gguf.GGMLQuantizationType[kind.upper()]


def _quantised(tensor: np.ndarray[Any, Any], label: gguf.GGMLQuantizationType) -> np.ndarray[Any, Any]:
    import gguf

    return gguf.quantize(tensor, label).view(np.uint8)
