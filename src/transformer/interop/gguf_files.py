"""Reads a model from a GGUF file, the format of llama.cpp, with Hugging Face's names.

The files come from anywhere. gguf_header.py checks the claims about bytes; this file checks that each tensor has the
name and the shape that the settings imply, so that nothing larger than the file's own tensors is ever built.
"""

from __future__ import annotations

import re
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from transformer.interop.errors import SourceError
from transformer.interop.gguf_header import GgufTensor, read_header
from transformer.interop.gguf_names import ARCHITECTURES
from transformer.interop.gguf_numbers import PLAIN, llama3_divisors, numbers, pairs_as_halves, require_gguf, shortest
from transformer.interop.tensor_files import mapped

if TYPE_CHECKING:
    from transformer.text.hf_tokenizer import HuggingFaceTokenizer

HARMLESS = {
    "vocab_size", "attention.key_length", "attention.value_length", "rope.dimension_count", "rope.freq_base",
    "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length", "rope.scaling.finetuned",
    "attention.causal", "expert_count", "expert_used_count", "attention.sliding_window", "attention.max_alibi_bias",
    "feed_forward_length",
}  # fmt: skip
"""Settings, besides those in gguf_names.py, that are read here or change nothing."""


class GgufFile:
    """A model in a GGUF file. Raises SourceError for a file that is damaged, or a model that cannot be read.

    `settings`: what config.json would contain. `names`: the tensors, by Hugging Face's names. `max_seq_len`: as in
    model_config().
    """

    def __init__(self, path: Path | str, max_seq_len: int | None = None) -> None:
        self.path, self.max_seq_len = Path(path), max_seq_len
        require_gguf(f"{self.path} cannot be read")
        self.header = read_header(self.path)
        self.kind = self.header.get("general.architecture", str, "")
        if self.kind not in ARCHITECTURES:
            self._refuse(f"the architecture {self.kind!r} is not supported; supported: {', '.join(ARCHITECTURES)}")
        if self.header.get("split.count", int, 1) > 1:
            self._refuse("one part of a split model: join the parts with llama-gguf-split --merge")
        self.architecture = ARCHITECTURES[self.kind]
        self._places = self._named_tensors()
        self.settings = self._read_settings()
        self._check_shapes()

    @property
    def names(self) -> list[str]:
        return list(self._places)

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the matrices; float32 for quantised ones, which nothing narrower holds exactly."""
        kinds = {PLAIN.get(tensor.kind, torch.float32) for tensor in self._places.values() if len(tensor.shape) > 1}
        return kinds.pop() if len(kinds) == 1 else torch.float32

    def tensor(self, name: str) -> Tensor:
        """Returns a tensor as it is stored, a quantised one as float32. Raises KeyError for an unknown name."""
        place = self._places[name]
        stem = place.name.split(".")[-2]
        rows = self._bytes(place).reshape(prod(place.shape[:-1]), -1)
        if self.architecture.pairs == "neighbours" and stem in ("attn_q", "attn_k"):
            rows = pairs_as_halves(rows.reshape(place.shape[0], -1), self.settings["head_dim"])
        found = numbers(rows, place).reshape(place.shape)
        return found.T if stem in self.architecture.transposed and found.ndim == 2 else found

    def tokenizer(self) -> HuggingFaceTokenizer:
        """Returns the encoding that the file contains. Raises SourceError if it cannot be used."""
        from transformer.interop.gguf_tokenizer import read_tokenizer

        return read_tokenizer(self.header, self.settings["vocab_size"])

    def _bytes(self, place: GgufTensor) -> np.ndarray[Any, Any]:
        """Returns the bytes of a tensor, mapped on their own: their pages leave the memory with them."""
        return np.frombuffer(mapped(self.path, place.start, place.start + place.size, place.name), np.uint8)

    def _refuse(self, reason: str) -> NoReturn:
        raise SourceError(f"{self.path}: {reason}")

    def _named_tensors(self) -> dict[str, GgufTensor]:
        """Returns the tensors by Hugging Face's names; a copy of the token table as output projection is left out."""
        places = {}
        for name, tensor in self.header.tensors.items():
            if name == "rope_freqs.weight" and self.kind == "llama":
                continue
            ours = self.architecture.to_hugging_face(name)
            if ours is None:
                self._refuse(f"the tensor {name} belongs to no part that a {self.kind} model has here")
            places[ours] = tensor
        table, output = (self.header.tensors.get(f"{name}.weight") for name in ("token_embd", "output"))
        if table is None or len(table.shape) != 2:
            self._refuse("the tensor token_embd.weight is missing")
        is_like_it = output is not None and (output.kind, output.shape) == (table.kind, table.shape)
        if output is not None and is_like_it and np.array_equal(self._bytes(output), self._bytes(table)):
            del places["lm_head.weight"]
        return places

    def _read_settings(self) -> dict[str, Any]:
        """Returns config.json's settings. Raises SourceError for a setting that this model cannot follow."""
        known = set(self.architecture.settings.values()) | HARMLESS
        for key in self.header.settings:
            if key.startswith(f"{self.kind}.") and key.removeprefix(f"{self.kind}.") not in known:
                self._refuse(f"the setting {key} is not supported")
        found = {name: self._setting(key) for name, key in self.architecture.settings.items()}
        if self._own("expert_count", int, 0):
            self._refuse("a mixture of experts is not supported")
        window, context = self._own("attention.sliding_window", int, 0), self._setting("context_length")
        if window and window < (self.max_seq_len or context):
            advice = f"import it with --max-seq-len {window}, in which it is full attention"
            self._refuse(f"attention within a window of {window} of {context} tokens is not supported: {advice}")
        if not self._own("attention.causal", bool, True):
            self._refuse("attention in both directions is not supported")
        table = self.header.tensors["token_embd.weight"]
        found |= {"model_type": self.kind, "vocab_size": table.shape[0]}
        found |= {"tie_word_embeddings": "lm_head.weight" not in self._places}
        if self.kind == "mpt" and (largest := self._own("attention.max_alibi_bias", float, 0.0)) != 8:
            self._refuse(f"mpt.attention.max_alibi_bias={largest} is not supported; supported: 8")
        if self.architecture.pairs != "none":
            found |= self._rotation()
        if self.kind not in ("gpt2", "mpt", "qwen2"):
            found |= {"attention_bias": self._has_bias("attn_q"), "mlp_bias": self._has_bias("ffn_up")}
        ids = {name: self.header.get(f"tokenizer.ggml.{name}", int) for name in ("bos_token_id", "eos_token_id")}
        found |= {name: value for name, value in ids.items() if value is not None}
        licence = self.header.get("general.license", str)
        return found | ({"license": licence} if licence else {})

    def _own(self, key: str, wanted: type | tuple[type, ...], default: Any = None) -> Any:
        return self.header.get(f"{self.kind}.{key}", wanted, default)

    def _setting(self, key: str) -> Any:
        """Returns a size, which must be positive, or the epsilon of norms."""
        default = self._own("attention.head_count", int) if key == "attention.head_count_kv" else None
        value = self._own(key, float if key.endswith("epsilon") else int, default)
        if value is None or isinstance(value, bool) or not 0 < value < 2**31:
            self._refuse(f"{self.kind}.{key} is {value}; wanted a number above 0")
        return value if isinstance(value, int) else shortest(value)

    def _has_bias(self, name: str) -> bool:
        return f"blk.0.{name}.bias" in self.header.tensors

    def _rotation(self) -> dict[str, Any]:
        """Returns the width of heads, theta, and the scaling of angles."""
        width, heads = self._setting("embedding_length"), self._setting("attention.head_count")
        head = self._own("attention.key_length", int, self._own("rope.dimension_count", int, width // heads))
        widths = {self._own(key, int, head) for key in ("attention.value_length", "rope.dimension_count")}
        if head < 2 or head % 2 or widths != {head}:
            self._refuse(f"heads with {head} numbers in keys and {sorted(widths)} in values or rotated: not supported")
        found = {"head_dim": head, "rope_theta": shortest(self._own("rope.freq_base", float, 10_000.0))}
        scaling = self._own("rope.scaling.type", str, "none")
        factor = self._own("rope.scaling.factor", float, 1.0)
        is_scaled = "rope_freqs.weight" in self.header.tensors
        if scaling == "linear" and not is_scaled:
            return found | {"rope_scaling": {"rope_type": "linear", "factor": shortest(factor)}}
        if scaling != "none":
            self._refuse(f"rope.scaling.type {scaling!r} is not supported; supported: linear")
        if is_scaled:
            return found | {"rope_scaling": self._llama3_scaling(head, found["rope_theta"])}
        return found

    def _llama3_scaling(self, head: int, theta: float) -> dict[str, Any]:
        """Returns the settings of Llama 3.1's scaling. The file has only its result, a divisor for each pair."""
        place = self.header.tensors["rope_freqs.weight"]
        if (place.kind, place.shape) != ("F32", (head // 2,)):
            self._refuse(f"rope_freqs.weight is {place.kind} of shape {place.shape}; wanted F32 of ({head // 2},)")
        divisors = np.frombuffer(self.header.data, "<f4", head // 2, place.start)
        factor = float(f"{divisors.max():.4g}")
        scaling = {
            "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }  # fmt: skip
        if not np.allclose(divisors, llama3_divisors(head, theta, scaling), rtol=1e-4):
            self._refuse("rope_freqs.weight is not Llama 3's scaling of positions (factors 1 and 4, 8192 positions)")
        return scaling

    def _check_shapes(self) -> None:
        """Raises SourceError if a tensor is missing or has another shape than the settings imply."""
        shapes = self._expected_shapes()
        layers = self._setting("block_count")
        highest = max(
            (int(found[1]) for name in self.header.tensors if (found := re.match(r"blk\.(\d+)\.", name))), default=-1
        )
        if layers != highest + 1:
            self._refuse(f"{self.kind}.block_count is {layers}, and the last block with tensors is {highest}")
        outside = self.architecture.outside.keys() - {"output"}
        blocks = [f"blk.{layer}.{stem}" for layer in range(layers) for stem in self.architecture.block]
        for stem in (*outside, *blocks):
            if f"{stem}.weight" not in self.header.tensors:
                self._refuse(f"the tensor {stem}.weight is missing")
        for name, tensor in self.header.tensors.items():
            if len(tensor.shape) == 1 and tensor.kind not in PLAIN:
                self._refuse(f"{name} is {tensor.kind}; norms and biases must be one of {', '.join(PLAIN)}")
            stem, end = name.split(".")[-2:]
            wanted = shapes.get(stem, tensor.shape)
            if tensor.shape != (wanted if end == "weight" else wanted[:1]):
                self._refuse(f"{name} has the shape {tensor.shape}, and the settings imply {wanted}")

    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each tensor by its name in a block."""
        width, inner = self._setting("embedding_length"), self._setting("feed_forward_length")
        heads = self._setting("attention.head_count")
        groups = heads if self.architecture.pairs == "none" else self._setting("attention.head_count_kv")
        head = self.settings.get("head_dim", width // heads)
        queries, keys = heads * head, groups * head
        norms = ("attn_norm", "ffn_norm", "output_norm", "post_attention_norm", "post_ffw_norm")
        each = self.kind == "qwen3"  # one norm for all heads
        return {
            **dict.fromkeys(norms, (width,)), **dict.fromkeys(("ffn_up", "ffn_gate"), (inner, width)),
            "ffn_down": (width, inner), "attn_q": (queries, width), "attn_k": (keys, width), "attn_v": (keys, width),
            "attn_qkv": (3 * width, width), "attn_output": (width, queries),
            "attn_q_norm": (head if each else queries,), "attn_k_norm": (head if each else keys,),
            **dict.fromkeys(("token_embd", "output"), (self.settings["vocab_size"], width)),
            "position_embd": (self._setting("context_length"), width),
        }  # fmt: skip
