"""Writes weights as safetensors, the format of transformers, one tensor at a time.

    8 bytes    length of the header, little-endian
    header     JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}, padded with spaces
    numbers    of all tensors, without gaps, in the order of the header

The library's own writer takes all tensors at once; tensors that were rearranged for another program are copies, so that
would be a second model in memory.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transformer.training.files import replacing, write_text

LARGEST_FILE = 5 * 10**9
"""Bytes of tensors in one file; a larger model is written in several, with an index."""
DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}

Tensors = Callable[[], Iterable[tuple[str, Tensor]]]
"""Returns all tensors by name, always in the same order. It is called twice: for the headers and for the numbers."""


def write_tensors(folder: Path, tensors: Tensors, largest: int = LARGEST_FILE) -> int:
    """Writes model.safetensors, or several files and their index, each with at most `largest` bytes of tensors.

    Returns how many numbers they hold. A single tensor that is larger has a file of its own. Raises OSError.
    """
    headers: list[dict[str, Any]] = [{}]
    end = 0
    for name, tensor in tensors():
        if headers[-1] and end + tensor.nbytes > largest:
            headers.append({})
            end = 0
        offsets = [end, end := end + tensor.nbytes]
        headers[-1][name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
    count = len(headers)
    files = [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    files = files if count > 1 else ["model.safetensors"]
    numbers = iter(tensors())
    for file_name, header in zip(files, headers, strict=True):
        with replacing(folder / file_name) as file:
            file.write(_encoded(header))
            for _ in header:
                _, tensor = next(numbers)
                file.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    if count > 1:
        weight_map = {name: file_name for file_name, header in zip(files, headers, strict=True) for name in header}
        size = sum(
            entry["data_offsets"][1] - entry["data_offsets"][0] for header in headers for entry in header.values()
        )
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        write_text(folder / "model.safetensors.index.json", json.dumps(index, indent=2) + "\n")
    return sum(math.prod(entry["shape"]) for header in headers for entry in header.values())


def _encoded(header: Mapping[str, Any]) -> bytes:
    """Returns the beginning of a file, a multiple of 8 bytes, so that the numbers can be used where they are mapped."""
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
