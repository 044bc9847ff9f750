"""Reads the header of a GGUF file (llama.cpp's format): its settings, and where its tensors are.

    "GGUF", version, number of tensors, number of settings
    each setting:   key, type, value           a text is its length and its bytes; a list its type, length and values
    each tensor:    name, dimensions, type, offset
    padding to a multiple of the alignment
    the tensors' numbers

The file may come from anywhere, and each count, length and offset in it is only a claim. So each is compared with the
bytes that the file still has before anything is read, and nothing is allocated for it: the file is mapped, and a list
stays in it until `GgufList.values` is called.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from transformer.interop.errors import SourceError

VERSIONS = (2, 3)
MOST_SETTINGS, MOST_TENSORS, MOST_TEXTS = 10_000, 100_000, 4_000_000
"""Limits far above those of known models: 60 settings, 2,000 tensors, 500,000 merges."""
LONGEST_NAME, LONGEST_TEXT = 256, 2**20
TEXT, LIST = 8, 9
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of numbers in settings, as the struct module writes them."""
TENSOR_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2), 8: ("Q8_0", 32, 34),
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
}  # fmt: skip
"""Number formats of tensors: name, numbers in a block, bytes of a block. A row is a whole number of blocks."""


@dataclass(frozen=True)
class GgufList:
    """A list in a setting. It is in the file, which is long enough for it."""

    path: Path
    data: mmap.mmap
    kind: int
    count: int
    start: int

    def values(self) -> list[Any]:
        """Returns the texts or numbers. Raises SourceError for too many, or for text that is not UTF-8."""
        if self.count > MOST_TEXTS:
            raise SourceError(f"{self.path}: a list of {self.count:,} entries is too long; at most {MOST_TEXTS:,}")
        if self.kind != TEXT:
            return list(struct.unpack_from(f"<{self.count}{NUMBERS[self.kind]}", self.data, self.start))
        reader = _Reader(self.path, self.data, self.start)
        return [reader.text("an entry of a list") for _ in range(self.count)]


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor is: shape as in PyTorch, rows before columns; start and size in bytes from the file's begin."""

    name: str
    shape: tuple[int, ...]
    kind: str
    start: int
    size: int


@dataclass(frozen=True)
class GgufHeader:
    path: Path
    data: mmap.mmap
    settings: dict[str, Any]
    """Numbers, texts and `GgufList`s by key."""
    tensors: dict[str, GgufTensor]

    def get(self, key: str, wanted: type | tuple[type, ...], default: Any = None) -> Any:
        """Returns a setting, or the default without it. Raises SourceError if it is of another type than wanted."""
        value = self.settings.get(key, default)
        if value is not default and not isinstance(value, wanted):
            raise SourceError(f"{self.path}: {key} is a {type(value).__name__} and has the wrong type")
        return value


class _Reader:
    """Reads values one after the other, none of them beyond the end of the file."""

    def __init__(self, path: Path, data: mmap.mmap, at: int = 0) -> None:
        self.path, self.data, self.at = path, data, at

    def skip(self, size: int, what: str) -> int:
        """Returns where the next `size` bytes start, and moves behind them."""
        left = len(self.data) - self.at
        if size > left:
            raise SourceError(f"{self.path}: truncated or damaged: {what} has {size:,} bytes and {left:,} are left")
        self.at += size
        return self.at - size

    def number(self, kind: int, what: str) -> Any:
        code = f"<{NUMBERS[kind]}"
        return struct.unpack_from(code, self.data, self.skip(struct.calcsize(code), what))[0]

    def count(self, what: str, most: int) -> int:
        count: int = self.number(10, what)
        if count > most:
            raise SourceError(f"{self.path}: {what} is {count:,}; at most {most:,} can be read")
        return count

    def text(self, what: str, most: int = LONGEST_TEXT) -> str:
        size = self.count(f"the length of {what}", most)
        start = self.skip(size, what)
        try:
            return self.data[start : start + size].decode()
        except UnicodeDecodeError as error:
            raise SourceError(f"{self.path}: {what} at byte {start:,} is not UTF-8") from error

    def value(self, kind: int, key: str) -> Any:
        if kind == TEXT:
            return self.text(key)
        if kind == LIST:
            return self.list(key)
        if kind not in NUMBERS:
            raise SourceError(f"{self.path}: {key} is of the unknown type {kind}")
        return self.number(kind, key)

    def list(self, key: str) -> GgufList:
        kind, count = self.number(4, key), self.number(10, key)
        start = self.at
        if kind in NUMBERS:
            self.skip(count * struct.calcsize(f"<{NUMBERS[kind]}"), key)
        elif kind == TEXT:
            self.at = self.skip(8 * count, key)  # the least that so many texts need
            if count > MOST_TEXTS:
                raise SourceError(f"{self.path}: {key} is a list of {count:,} texts; at most {MOST_TEXTS:,} are read")
            for _ in range(count):
                self.skip(self.number(10, key), key)
        else:
            raise SourceError(f"{self.path}: {key} is a list of the unknown type {kind}")
        return GgufList(self.path, self.data, kind, count, start)


def read_header(path: Path) -> GgufHeader:
    """Returns the header of a GGUF file. Raises SourceError for any other file, and for a damaged one."""
    data = _map(path)
    reader = _Reader(path, data)
    if data[:4] != b"GGUF":
        raise SourceError(f"{path}: not a GGUF file: it does not begin with the letters GGUF")
    reader.skip(4, "its name")
    version = reader.number(4, "its version")
    if version not in VERSIONS:
        order = " of a big-endian machine" if version & 0xFFFF == 0 else ""
        raise SourceError(f"{path}: GGUF version {version}{order} is not supported; wanted 2 or 3, little-endian")
    tensors = reader.count("its number of tensors", MOST_TENSORS)
    settings = _settings(reader, reader.count("its number of settings", MOST_SETTINGS))
    return GgufHeader(path, data, settings, _tensors(reader, tensors, settings.get("general.alignment", 32)))


def _map(path: Path) -> mmap.mmap:
    try:
        if not path.is_file():  # a pipe would wait
            raise SourceError(f"{path}: not a file")
        if path.stat().st_size < 24:
            raise SourceError(f"{path}: not a GGUF file: it has {path.stat().st_size} bytes")
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from error


def _settings(reader: _Reader, count: int) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for _ in range(count):
        key = _printable(reader, "a key")
        if key in settings:
            raise SourceError(f"{reader.path}: {key} occurs twice")
        settings[key] = reader.value(reader.number(4, key), key)
    return settings


def _tensors(reader: _Reader, count: int, alignment: Any) -> dict[str, GgufTensor]:
    """Reads the list of tensors; checks that each is within the file, aligned, and apart from the others."""
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise SourceError(f"{reader.path}: general.alignment must be a power of two")
    found = {tensor.name: tensor for tensor in (_tensor(reader, alignment) for _ in range(count))}
    if len(found) < count:
        raise SourceError(f"{reader.path}: several tensors have the same name")
    begin, size = -(-reader.at // alignment) * alignment, len(reader.data)
    placed = {t.name: GgufTensor(t.name, t.shape, t.kind, begin + t.start, t.size) for t in found.values()}
    end, before = begin, ""
    for tensor in sorted(placed.values(), key=lambda tensor: tensor.start):
        if tensor.start < end:
            raise SourceError(f"{reader.path}: the tensors {before} and {tensor.name} overlap")
        end, before = tensor.start + tensor.size, tensor.name
        if end > size:
            raise SourceError(f"{reader.path}: truncated: {before} ends at byte {end:,}, the file at byte {size:,}")
    return placed


def _tensor(reader: _Reader, alignment: int) -> GgufTensor:
    name = _printable(reader, "the name of a tensor")
    dimensions = reader.number(4, name)
    if not 1 <= dimensions <= 4:
        raise SourceError(f"{reader.path}: {name} has {dimensions} dimensions; wanted 1 to 4")
    shape = tuple(reader.number(10, name) for _ in range(dimensions))[::-1]
    kind, start = reader.number(4, name), reader.number(10, name)
    if kind not in TENSOR_TYPES:
        known = ", ".join(known for known, *_ in TENSOR_TYPES.values())
        raise SourceError(f"{reader.path}: {name} is in the number format {kind}; supported: {known}")
    label, numbers, size = TENSOR_TYPES[kind]
    if 0 in shape or shape[-1] % numbers:
        raise SourceError(f"{reader.path}: {name} has the shape {shape}, with rows that are no multiple of {numbers}")
    if start % alignment:
        raise SourceError(f"{reader.path}: {name} begins at byte {start:,}, not a multiple of {alignment}")
    return GgufTensor(name, shape, label, start, prod(shape) // numbers * size)


def _printable(reader: _Reader, what: str) -> str:
    name = reader.text(what, LONGEST_NAME)
    if not name or not name.isprintable():
        raise SourceError(f"{reader.path}: {what} is {name!r}")
    return name
