"""A trained model as text that a browser can read: settings, encoding and weights, for the lesson page.

`page/forward.js` and `page/tokenizer.js` read what `export` makes. Matrices become 8-bit integers with a scale for each
row (quantisation.py); norms and biases, a hundredth of the whole, stay 32 bits. All bytes are written in base64, four
characters for three bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from transformer.config import ModelConfig
from transformer.kernels.int8 import Int8Linear
from transformer.model import DecoderOnlyTransformer
from transformer.text import ByteTokenizer, Tokenizer
from transformer.text.encodings import TiktokenTokenizer

FORMAT = 1


def export(model: DecoderOnlyTransformer, tokenizer: Tokenizer, about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the model as plain values for JSON; `about` is what the page may tell of it.

    Raises ValueError for an encoding that has no counterpart in the browser.
    """
    config = {**model.config.to_dict(), "kv_heads": model.config.kv_heads, "head_dim": model.config.head_dim}
    return {
        "format": FORMAT,
        "config": config,
        "tokenizer": export_tokenizer(tokenizer),
        "about": dict(about),
        "weights": {name: _stored(weight.detach().cpu()) for name, weight in _weights(model).items()},
    }


def dequantised_model(exported: Mapping[str, Any]) -> DecoderOnlyTransformer:
    """Returns the model that the browser runs: the exported config and, bit for bit, the weights it unpacks."""
    known = ModelConfig().to_dict()
    config = ModelConfig.from_dict({name: value for name, value in exported["config"].items() if name in known})
    with torch.random.fork_rng(devices=[]):
        model = DecoderOnlyTransformer(config).eval()
    weights = _weights(model)
    with torch.no_grad():
        for name, stored in exported["weights"].items():
            weights[name].copy_(_unpacked(stored))
    return model


def exported_bytes(config: ModelConfig, tokenizer: Tokenizer) -> int:
    """Returns how many bytes the exported model will have, to about a percent, from its shapes alone."""
    model = DecoderOnlyTransformer(config, device="meta")
    packed = len(json.dumps(export_tokenizer(tokenizer)))
    for weight in _weights(model).values():
        packed += (weight.numel() + 4 * len(weight) if weight.ndim == 2 else 4 * weight.numel()) * 4 // 3
    return packed


def script(exported: Mapping[str, Any]) -> str:
    """Returns the exported model as JavaScript, a line for each part; it holds no `<`, so it may stand in a page."""
    parts = [f"  {json.dumps(name)}: {json.dumps(value)}," for name, value in exported.items() if name != "weights"]
    weights = [f"    {json.dumps(name)}: {json.dumps(value)}," for name, value in exported["weights"].items()]
    lines = ["var GPT = GPT || {};", "GPT.exported = {", *parts, '  "weights": {', *weights, "  },", "};", ""]
    return "\n".join(lines).replace("<", "\\u003c")


def export_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns an encoding as page/tokenizer.js reads it. Raises ValueError for one of another kind."""
    found = {"name": tokenizer.name, "vocab_size": tokenizer.vocab_size, "eot_id": tokenizer.eot_id}
    if isinstance(tokenizer, ByteTokenizer):
        return {"kind": "byte", **found}
    if not isinstance(tokenizer, TiktokenTokenizer):
        raise ValueError(f"encoding {tokenizer.name!r} is neither bytes nor byte pairs: the page knows only those")
    encoding = tokenizer.encoding
    special = {name: encoding.encode_single_token(name) for name in sorted(encoding.special_tokens_set)}
    packed = bytearray()
    for token in range(tokenizer.vocab_size):
        packed += _with_length(b"" if token in special.values() else _token_bytes(tokenizer, token))
    return {"kind": "bpe", **found, "pattern": encoding._pat_str, "special": special, "tokens": _text(bytes(packed))}


def _token_bytes(tokenizer: TiktokenTokenizer, token: int) -> bytes:
    try:
        return tokenizer.encoding.decode_single_token_bytes(token)
    except KeyError:  # an id that the encoding leaves unused
        return b""


def _with_length(token: bytes) -> bytes:
    """The bytes after their number, which is written in groups of seven bits, lowest first."""
    length, groups = len(token), bytearray()
    while length > 127:
        groups.append(length & 127 | 128)
        length >>= 7
    return bytes([*groups, length]) + token


def _weights(model: DecoderOnlyTransformer) -> dict[str, Tensor]:
    """The model's parameters by name; a tied output projection is left out."""
    return dict(model.named_parameters())


def _stored(weight: Tensor) -> dict[str, Any]:
    shape = list(weight.shape)
    if weight.ndim != 2:
        return {"shape": shape, "type": "float32", "data": _text(_bytes(weight.float()))}
    rounded = Int8Linear(weight)
    scales, whole = _text(_bytes(rounded.scale)), _text(_bytes(rounded.quantised))
    return {"shape": shape, "type": "int8", "scales": scales, "data": whole}


def _unpacked(stored: Mapping[str, Any]) -> Tensor:
    def numbers(name: str, dtype: torch.dtype) -> Tensor:
        return torch.frombuffer(bytearray(base64.b64decode(stored[name])), dtype=dtype)

    if stored["type"] == "float32":
        return numbers("data", torch.float32).view(stored["shape"])
    return numbers("data", torch.int8).view(stored["shape"]) * numbers("scales", torch.float32)[:, None]


def _bytes(numbers: Tensor) -> bytes:
    """The numbers' own bytes, lowest first, as every browser keeps them too."""
    array = numbers.contiguous().numpy()
    return bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
