"""Writes a model as an ONNX file with a key-value cache, which onnxruntime and others run in any language.

    in     tokens (B, T) int64, keys and values (layers, B, K, P, D) float32 of the P tokens before; at first P = 0
    out    logits (B, T, V), all_keys and all_values (layers, B, K, P + T, D): `keys` and `values` of the next call

PyTorch's exporter records the operations of one forward pass for any B, T and P. Every shape of model can be exported.
The tokenizer.json is in the file's metadata, under that name.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transformer.attention import Context
from transformer.embeddings import alibi_bias
from transformer.interop.hf_check import (
    NEW_TOKENS,
    RELATIVE_ERROR,
    TEXTS,
    Agreement,
    MismatchError,
    in_float32,
)
from transformer.interop.hf_export import check_weights
from transformer.interop.tokenizer_json import tokenizer_files
from transformer.kv_cache import KVCache
from transformer.model import DecoderOnlyTransformer
from transformer.text import Tokenizer, prompt_ids
from transformer.training.files import replacing

LARGEST = 2**31 - 2**20
"""Bytes of weights: an ONNX file holds 2 GiB."""
NEEDED = ("onnx", "onnxscript")


class GrowingCache(KVCache):
    """A cache that returns new tensors instead of writing to its own, as a recorded pass must."""

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.keys[layer] = torch.cat([self.keys[layer], k], dim=2)  # (B, K, P + T, D)
        self.values[layer] = torch.cat([self.values[layer], v], dim=2)
        return self.keys[layer], self.values[layer]


class CachedModel(nn.Module):
    """The model as a function of tokens and cache: the inputs and outputs in this file's lesson."""

    def __init__(self, model: DecoderOnlyTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        model, past, new = self.model, keys.shape[3], tokens.shape[1]
        positions = torch.arange(new) + past  # (T,)
        mask = positions[:, None] >= torch.arange(past + new)  # (T, S)
        if model.slopes is not None:
            mask = alibi_bias(model.slopes, new, past + new)[None]  # (1, H, T, S)
        rotary = None if model.rotary is None else model.rotary[:, positions].unsqueeze(-3)  # (2, 1, T, D)
        cache = GrowingCache(list(keys.unbind()), list(values.unbind()))
        x = model.embeddings(tokens, positions)  # (B, T, C)
        for block in model.layers:
            x = block(x, Context(positions, rotary, mask), cache)  # (B, T, C)
        return model.head(model.final_norm(x)), torch.stack(cache.keys), torch.stack(cache.values)


def empty_cache(model: DecoderOnlyTransformer, batch: int = 1, length: int = 0) -> Tensor:
    """Returns the keys, or the values, of no tokens: (layers, B, K, 0, D)."""
    config = model.config
    return torch.zeros(config.num_layers, batch, config.kv_heads, length, config.head_dim)


def write_onnx(model: DecoderOnlyTransformer, tokenizer: Tokenizer, path: Path) -> None:
    """Writes the file, whole or not at all; its numbers are float32. Raises ValueError and OSError."""
    check_weights(model)
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ValueError(f"{path} cannot be written without {' and '.join(missing)}: `pip install {' '.join(missing)}`")
    if (size := 4 * sum(model.parameter_counts().values())) > LARGEST:
        raise ValueError(f"the weights have {size:,} bytes, and an ONNX file holds {LARGEST:,}: export with --to hf")
    contents = tokenizer_files(tokenizer, model.config.max_seq_len)["tokenizer.json"]
    program = _recorded(in_float32(model).cpu())
    program.model.metadata_props["tokenizer.json"] = json.dumps(contents, ensure_ascii=False)
    with replacing(path) as file:
        file.write(program.model_proto.SerializeToString())


def _recorded(model: DecoderOnlyTransformer) -> Any:
    """Returns PyTorch's ONNX program of a model in float32."""
    batch, new, past = (torch.export.Dim(name) for name in ("batch", "new", "past"))
    example = (torch.zeros(2, 3, dtype=torch.int64), empty_cache(model, 2, 2), empty_cache(model, 2, 2))
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):  # about the exporter's own parts
            return torch.onnx.export(
                CachedModel(model).eval(),
                example,
                input_names=["tokens", "keys", "values"],
                output_names=["logits", "all_keys", "all_values"],
                dynamic_shapes=({0: batch, 1: new}, {1: batch, 3: past}, {1: batch, 3: past}),
                dynamo=True,
                verbose=False,
            )
    finally:
        log.setLevel(level)


@torch.no_grad()
def compare_with_onnxruntime(path: Path, model: DecoderOnlyTransformer, tokenizer: Tokenizer) -> Agreement:
    """Compares the file with the model that it was written from, in onnxruntime: logits, and greedy text by the cache.

    Raises MismatchError.
    """
    onnxruntime: Any = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    own = in_float32(model).cpu()
    difference, equal = 0.0, 0
    for text in TEXTS:
        ids = prompt_ids(tokenizer, text)[: max(1, own.config.max_seq_len // 2)]
        new = ids
        cache: Any = (empty_cache(own).numpy(),) * 2
        for _ in range(min(NEW_TOKENS, own.config.max_seq_len - len(ids))):
            found, *cache = session.run(None, {"tokens": np.array([new]), "keys": cache[0], "values": cache[1]})
            wanted = own(torch.tensor([ids]))[0, -1]  # (V,), without a cache
            error = float((torch.from_numpy(found)[0, -1] - wanted).abs().max())
            allowed = RELATIVE_ERROR * max(1.0, float(wanted.abs().max()))
            if not error <= allowed or math.isnan(error):
                raise MismatchError(f"the logits of onnxruntime differ by {error:.3g}; rounding allows {allowed:.3g}")
            new = [int(wanted.argmax())]
            ids, difference, equal = ids + new, max(difference, error), equal + 1
    return Agreement(onnxruntime.__version__, difference, equal)
