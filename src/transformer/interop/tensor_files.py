"""Weights in safetensors files: checked before use, and mapped one tensor at a time.

A safetensors file is a length of 8 bytes, a JSON header of that length, and the numbers of all tensors:

    {"wte.weight": {"dtype": "F32", "shape": [50257, 768], "data_offsets": [0, 154389504]}, ...}

The header is not trusted: every tensor must have the bytes that its shape needs, and together they must cover the rest
of the file exactly, without a gap or an overlap. So no header can make anything larger than the file. Large models come
as several such files with an index that names the file of each tensor.

A tensor is mapped, not read: its pages come from the file when they are used, and leave with it.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import KeysView
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from transformer.interop.errors import SourceError
from transformer.interop.folders import file_in
from transformer.interop.json_files import json_object, read_json
from transformer.training.checkpoint_contents import brief

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LARGEST_HEADER = 2**23
"""Bytes of the largest header that is read: about 50,000 tensors in one file."""
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class Entry(NamedTuple):
    """Where a tensor is: its file, kind, shape, and the bytes from `start` to `end` of the file."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


class TensorFolder:
    """The tensors in a folder's model.safetensors, or in the shards that its index names.

    `names` has their names, tensor(name) maps one. Raises SourceError for files that are not what they should be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._entries: dict[str, Entry] = {}
        shards = _shards(folder)
        for shard in sorted(set(shards.values())) or [WEIGHTS]:
            entries = read_header(file_in(folder, shard))
            if twice := self._entries.keys() & entries.keys():
                raise SourceError(f"{folder / shard}: {brief(repr(min(twice)))} is in another file too")
            self._entries |= entries
        for name, shard in shards.items():
            if name not in self._entries or self._entries[name].path.name != shard:
                raise SourceError(f"{folder / shard}: has no tensor {brief(repr(name))}, which {INDEX} says is there")

    @property
    def names(self) -> KeysView[str]:
        """The names of all tensors."""
        return self._entries.keys()

    @property
    def files(self) -> set[str]:
        """The names of the files that hold them."""
        return {entry.path.name for entry in self._entries.values()}

    @property
    def nbytes(self) -> int:
        """The size of all tensors, in bytes."""
        return sum(entry.end - entry.start for entry in self._entries.values())

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a tensor, from its header."""
        return self._entries[name].shape

    def tensor(self, name: str) -> Tensor:
        """Returns a tensor whose numbers stay in the file; writing to it does not change the file."""
        path, dtype, shape, start, end = self._entries[name]
        if start == end:
            return torch.empty(shape, dtype=dtype)
        numbers = torch.frombuffer(mapped(path, start, end, name), dtype=torch.uint8)
        if start % dtype.itemsize:  # allowed by the format, but not by PyTorch
            numbers = numbers.clone()
        return numbers.view(dtype).view(shape)


def mapped(path: Path, start: int, end: int, name: str) -> memoryview:
    """Returns the bytes of a tensor, which stay in the file; changes of them do not reach it. Raises SourceError."""
    before = start % mmap.ALLOCATIONGRANULARITY  # a mapping begins at a multiple of this
    try:
        with path.open("rb") as file:
            pages = mmap.mmap(file.fileno(), end - start + before, access=mmap.ACCESS_COPY, offset=start - before)
    except (OSError, ValueError) as error:  # the file was replaced or shortened since its header was read
        raise SourceError(f"{path}: {brief(repr(name))} cannot be mapped: {error}") from error
    return memoryview(pages)[before:]


def _shards(folder: Path) -> dict[str, str]:
    """Returns the file of each tensor from the index, or an empty dict if the folder has a single file."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: is not a folder")
    if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
        if not (folder / WEIGHTS).exists() and (pickled := [*folder.glob("pytorch_model*.bin"), *folder.glob("*.pth")]):
            raise SourceError(
                f"{folder}: holds its weights as a pickle ({min(pickled).name}), which can run code when it is read; "
                "load it with transformers and save_pretrained(folder) to get model.safetensors"
            )
        return {}
    shards = read_json(file_in(folder, INDEX)).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(shard, str) for shard in shards.values()):
        raise SourceError(f"{folder / INDEX}: has no weight_map that names a file for each tensor")
    return shards


def read_header(path: Path) -> dict[str, Entry]:
    """Returns the tensors of a safetensors file by name. Raises SourceError unless its header fits the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise SourceError(f"{path}: not a safetensors file, or cut off: no header of {length:,} bytes in {size:,}")
        if length > LARGEST_HEADER:
            raise SourceError(f"{path}: a header of {length:,} bytes; at most {LARGEST_HEADER:,} are read")
        header = json_object(file.read(length), f"{path}: header")
    header.pop("__metadata__", None)
    entries = {name: _entry(path, name, value, 8 + length) for name, value in header.items()}
    end = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: item[1][3:]):
        if entry.start != end:
            raise SourceError(
                f"{path}: {brief(repr(name))} begins at byte {entry.start:,}, and the tensor before ends at {end:,}"
            )
        end = entry.end
    if end != size:
        raise SourceError(f"{path}: its tensors end at byte {end:,}, and the file at {size:,}")
    return entries


def _entry(path: Path, name: str, value: Any, data: int) -> Entry:
    """Returns a tensor's entry from its part of the header; `data` is the byte at which the numbers begin."""
    match value:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [start, end]} if (
            name.isprintable()
            and kind in DTYPES
            and len(shape) <= 8
            and all(type(n) is int and 0 <= n < 2**63 for n in (*shape, start, end))
        ):
            if end - start != math.prod(shape) * DTYPES[kind].itemsize:
                raise SourceError(
                    f"{path}: {brief(repr(name))} has {end - start:,} bytes, not those of {shape} numbers of {kind}"
                )
            return Entry(path, DTYPES[kind], tuple(shape), data + start, data + end)
    raise SourceError(f"{path}: {brief(repr(name))} is not a tensor that can be read: {brief(json.dumps(value))}")
