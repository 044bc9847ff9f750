"""Numbers in a GGUF file: blocks become float32, rows of rotated heads take our order, and Llama 3's divisors.

The format stores matrices as blocks of 32 or 256 numbers in a row: 4 to 8 bits for each number, and a scale for the
block. The `gguf` package makes float32 of them, here a few rows of a tensor at a time.
"""

from __future__ import annotations

import mmap
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transformer.interop.errors import SourceError
from transformer.interop.gguf_header import GgufTensor

PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
CHUNK_BYTES = 2**18
"""Bytes that are made float32 at a time."""


def require_gguf(what: str) -> None:
    """Raises SourceError if the `gguf` package is not installed."""
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise SourceError(
            f"{what} without the package gguf: type `uv pip install --no-config gguf`, or `pip install gguf`"
        ) from error


def shortest(value: float) -> float:
    """Returns the shortest decimal that is the same float32: 9.999999747378752e-06 -> 1e-05."""
    return float(str(np.float32(value)))


def pairs_as_halves(rows: np.ndarray[Any, Any], head: int) -> np.ndarray[Any, Any]:
    """Reorders the rows of each head: from pairs side by side to all first numbers of pairs, then all second ones."""
    return rows.reshape(-1, head // 2, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def halves_as_pairs(rows: np.ndarray[Any, Any], head: int) -> np.ndarray[Any, Any]:
    """The reverse of pairs_as_halves()."""
    return rows.reshape(-1, 2, head // 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def llama3_divisors(head: int, theta: float, scaling: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Returns by how much Llama 3.1 divides the frequency of each pair, (head / 2,) float64.

    A pair that turns more than `high_freq_factor` times within the original context keeps its frequency, one that turns
    less than `low_freq_factor` times is slowed by `factor`; between them the change is gradual.
    """
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    frequencies = theta ** (-np.arange(0, head, 2) / head)  # radians per position
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)  # 1: unchanged
    divisors: np.ndarray[Any, Any] = 1 / ((1 - kept) / scaling["factor"] + kept)
    return divisors


def numbers(rows: np.ndarray[Any, Any], place: GgufTensor) -> Tensor:
    """Returns the numbers of rows of bytes as a tensor whose memory is returned to the system with it."""
    if place.kind in PLAIN:
        dtype = PLAIN[place.kind]
        return torch.from_numpy(rows if place.start % dtype.itemsize == 0 else rows.copy()).view(dtype)
    import gguf

    kind = gguf.GGMLQuantizationType[place.kind]
    # A mapping: the parts of memory that torch.empty() would leave behind are too small for the next, larger tensor.
    found = torch.frombuffer(mmap.mmap(-1, 4 * prod(place.shape)), dtype=torch.float32).view(len(rows), -1)
    step = max(1, CHUNK_BYTES // rows.shape[-1])
    for start in range(0, len(rows), step):
        found[start : start + step] = torch.from_numpy(gguf.dequantize(rows[start : start + step], kind))
    return found
