"""Exports a trained model for the lesson page: config, tokenizer and weights as JSON values that a browser can read.

`page/forward.js` and `page/tokenizer.js` read the result of `export`. Matrices become 8-bit integers with one
scale per row (kernels/int8.py); norms and biases, about 1% of the weights, keep 32 bits. All bytes are encoded in
base64, four characters for three bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from transformer.config import ModelConfig
from transformer.interop.page_tokenizer import byte_level_parts
from transformer.kernels.int8 import Int8Linear
from transformer.model import DecoderOnlyTransformer
from transformer.text import ByteTokenizer, HuggingFaceTokenizer, Tokenizer
from transformer.text.encodings import TiktokenTokenizer
from transformer.training.checkpoint_contents import meta_model

FORMAT = 1
NOT_ON_THE_PAGE = ("head_width", "qk_norm", "norm_position", "parallel_blocks", "rotary_fraction", "rope_scaling")
"""Settings of which page/forward.js computes only the default."""


def export(model: DecoderOnlyTransformer, tokenizer: Tokenizer, about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the model as values for JSON; `about` describes it (dataset, step, scores) for the text of the page.

    Raises ValueError if the page does not support the encoding or a setting of the model.
    """
    check_settings(model.config)
    config = {**model.config.to_dict(), "kv_heads": model.config.kv_heads, "head_dim": model.config.head_dim}
    return {
        "format": FORMAT,
        "config": config,
        "tokenizer": export_tokenizer(tokenizer),
        "about": dict(about),
        "weights": {name: _pack(weight.detach().cpu()) for name, weight in _weights(model).items()},
    }


def dequantised_model(exported: Mapping[str, Any]) -> DecoderOnlyTransformer:
    """Returns the model that the browser runs: the exported config and exactly the weights that it unpacks."""
    known = ModelConfig().to_dict()
    config = ModelConfig.from_dict({name: value for name, value in exported["config"].items() if name in known})
    with torch.random.fork_rng(devices=[]):
        model = DecoderOnlyTransformer(config).eval()
    weights = _weights(model)
    with torch.no_grad():
        for name, stored in exported["weights"].items():
            weights[name].copy_(_unpack(stored))
    return model


def exported_bytes(config: ModelConfig, tokenizer: Tokenizer) -> int:
    """Estimates the size of the exported model in bytes, to about 1%, from its shapes alone; errors as export()."""
    check_settings(config)
    model = meta_model(config)
    packed = len(json.dumps(export_tokenizer(tokenizer)))
    for weight in _weights(model).values():
        packed += (weight.numel() + 4 * len(weight) if weight.ndim == 2 else 4 * weight.numel()) * 4 // 3
    return packed


def check_settings(config: ModelConfig) -> None:
    """Raises ValueError if the page does not compute a setting of the model."""
    is_usual_width = config.num_heads * config.head_dim == config.d_model
    default = ModelConfig(head_width=config.head_width if is_usual_width else None)
    names = [name for name in NOT_ON_THE_PAGE if getattr(config, name) != getattr(default, name)]
    if names:
        found = ", ".join(f"{name}={getattr(config, name)!r}" for name in names)
        raise ValueError(f"the page cannot run a model with {found}: it computes only the default of these settings")


def script(exported: Mapping[str, Any]) -> str:
    """Returns the exported model as JavaScript, one line per part; it contains no `<`, so it is safe inside HTML."""
    parts = [f"  {json.dumps(name)}: {json.dumps(value)}," for name, value in exported.items() if name != "weights"]
    weights = [f"    {json.dumps(name)}: {json.dumps(value)}," for name, value in exported["weights"].items()]
    lines = ["var GPT = GPT || {};", "GPT.exported = {", *parts, '  "weights": {', *weights, "  },", "};", ""]
    return "\n".join(lines).replace("<", "\\u003c")


def export_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns an encoding in the format of page/tokenizer.js. Raises ValueError for an unsupported kind."""
    found = {"name": tokenizer.name, "vocab_size": tokenizer.vocab_size, "eot_id": tokenizer.eot_id}
    if isinstance(tokenizer, ByteTokenizer):
        return {"kind": "byte", **found}
    if isinstance(tokenizer, HuggingFaceTokenizer):
        parts = byte_level_parts(tokenizer)
        bytes_of = {rank: token for token, rank in parts.pop("ranks").items()}
        packed = b"".join(_length_prefixed(bytes_of.get(token, b"")) for token in range(tokenizer.vocab_size))
        return {"kind": "bpe", **found, **parts, "tokens": _base64(packed)}
    if not isinstance(tokenizer, TiktokenTokenizer):
        raise ValueError(
            f"encoding {tokenizer.name!r} is not a byte or byte-pair encoding; the page supports only these"
        )
    encoding = tokenizer.encoding
    special = {name: encoding.encode_single_token(name) for name in sorted(encoding.special_tokens_set)}
    ids = set(special.values())
    packed = b"".join(
        _length_prefixed(b"" if token in ids else _token_bytes(tokenizer, token))
        for token in range(tokenizer.vocab_size)
    )
    return {"kind": "bpe", **found, "pattern": encoding._pat_str, "special": special, "tokens": _base64(packed)}


def _token_bytes(tokenizer: TiktokenTokenizer, token: int) -> bytes:
    try:
        return tokenizer.encoding.decode_single_token_bytes(token)
    except KeyError:  # an id that the encoding does not use
        return b""


def _length_prefixed(token: bytes) -> bytes:
    """The bytes, preceded by their count in groups of seven bits, lowest first."""
    length, groups = len(token), bytearray()
    while length > 127:
        groups.append(length & 127 | 128)
        length >>= 7
    return bytes([*groups, length]) + token


def _weights(model: DecoderOnlyTransformer) -> dict[str, Tensor]:
    """The model's parameters by name; a tied output projection appears once."""
    return dict(model.named_parameters())


def _pack(weight: Tensor) -> dict[str, Any]:
    shape = list(weight.shape)
    if weight.ndim != 2:
        return {"shape": shape, "type": "float32", "data": _base64(_bytes(weight.float()))}
    rounded = Int8Linear(weight)
    scales, whole = _base64(_bytes(rounded.scale)), _base64(_bytes(rounded.quantised))
    return {"shape": shape, "type": "int8", "scales": scales, "data": whole}


def _unpack(stored: Mapping[str, Any]) -> Tensor:
    def numbers(name: str, dtype: torch.dtype) -> Tensor:
        return torch.frombuffer(bytearray(base64.b64decode(stored[name])), dtype=dtype)

    if stored["type"] == "float32":
        return numbers("data", torch.float32).view(stored["shape"])
    return numbers("data", torch.int8).view(stored["shape"]) * numbers("scales", torch.float32)[:, None]


def _bytes(numbers: Tensor) -> bytes:
    """The numbers as little-endian bytes, the order that browsers use."""
    array = numbers.contiguous().numpy()
    return bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
