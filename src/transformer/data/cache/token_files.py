"""Token files: the tokens of one unit of text, stored so that reading them is mapping a file into memory.

    magic 8 bytes | version 4 | crc32 4 | label 16 | tokens 8 | documents 8 | digests | ids | lengths

All numbers are little-endian; the crc32 covers all that follows it. `digests` (uint64) and `lengths` (uint32) have an
entry for each document, `ids` (uint32) one for each token. A document's digest is a hash of its text, as large as
uint64: it says on which side of the training split the document lies, for any share held out, so that the share can
change without tokenizing again. The label says which text and encoding the tokens are of; whoever reads names it too.

Every read checks the crc32, about a millisecond for a million tokens. A damaged file is a ValueError, never wrong ids.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

MAGIC = b"\x93tokens\n"
VERSION = 1
LABEL_BYTES = 16
_HEAD = struct.Struct("<8sII")  # magic, version, crc32
_COUNTS = struct.Struct(f"<{LABEL_BYTES}sQQ")  # label, tokens, documents
_BODY = _HEAD.size + _COUNTS.size  # a multiple of 8, so that the digests are aligned

Ids = npt.NDArray[np.uint32]
Digests = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class RowGroupTokens:
    """The tokens of a unit's documents, one document after another. Raises ValueError where the arrays disagree."""

    ids: Ids
    """(tokens,) uint32, an end-of-text after each document."""
    lengths: Ids
    """(documents,) uint32: each document's tokens, its end-of-text included."""
    digests: Digests
    """(documents,) uint64: a hash of each document's text."""

    def __post_init__(self) -> None:
        kinds = [f"{array.dtype}[{array.ndim}]" for array in (self.ids, self.lengths, self.digests)]
        if kinds != ["uint32[1]", "uint32[1]", "uint64[1]"]:
            raise ValueError(f"unit tokens are flat arrays, uint32, uint32 and uint64, not {', '.join(kinds)}")
        documents, tokens = len(self.lengths), int(self.lengths.sum(dtype=np.uint64))
        if (documents, tokens) != (len(self.digests), len(self.ids)):
            raise ValueError(
                f"{documents} lengths that add up to {tokens} do not fit {len(self.digests)} digests "
                f"and {len(self.ids)} ids"
            )

    @property
    def nbytes(self) -> int:
        """Bytes of the file that holds them."""
        return _BODY + self.digests.nbytes + self.ids.nbytes + self.lengths.nbytes

    def side(self, fraction: float, validation: bool) -> Ids:
        """The ids of the documents whose digest is below fraction * 2**64 (validation), or of the others (train).

        uint32, read-only or not to be written: it is a view of `ids` where all documents are chosen.
        """
        below = math.ceil(fraction * 2**64)  # a power of two scales without rounding; digests are whole numbers
        if below <= 0 or below >= 2**64:
            return self.ids if validation == (below > 0) else self.ids[:0]
        chosen = (self.digests < np.uint64(below)) == validation
        return self.ids if chosen.all() else self.ids[np.repeat(chosen, self.lengths)]


def write(target: Path | BinaryIO, unit: RowGroupTokens, label: bytes = b"") -> None:
    """Writes the file. `label`, at most 16 bytes, must be given again to read it."""
    if isinstance(target, Path):
        with target.open("wb") as file:
            return write(file, unit, label)
    arrays = [
        np.ascontiguousarray(unit.digests, "<u8").data,
        np.ascontiguousarray(unit.ids, "<u4").data,
        np.ascontiguousarray(unit.lengths, "<u4").data,
    ]
    counts = _COUNTS.pack(_padded(label), len(unit.ids), len(unit.lengths))
    crc = zlib.crc32(counts)
    for array in arrays:
        crc = zlib.crc32(array, crc)
    target.write(_HEAD.pack(MAGIC, VERSION, crc) + counts)
    for array in arrays:
        target.write(array)
    return None


def read(path: Path, label: bytes = b"") -> RowGroupTokens:
    """The tokens, mapped read-only. Raises ValueError for a damaged file or another label, OSError where none opens."""
    if (size := path.stat().st_size) < _BODY:
        raise ValueError(f"{size} bytes are no token file")
    with pa.memory_map(str(path)) as file:  # unlike mmap's, its maps keep no file open
        mapped = memoryview(file.read_buffer())
    size = len(mapped)
    magic, version, crc = _HEAD.unpack_from(mapped)
    if (magic, version) != (MAGIC, VERSION):
        raise ValueError("not a token file of this version")
    if zlib.crc32(mapped[_HEAD.size :]) != crc:
        raise ValueError("its checksum is wrong")
    found, tokens, documents = _COUNTS.unpack_from(mapped, _HEAD.size)
    if size != _BODY + 12 * documents + 4 * tokens:
        raise ValueError(f"{size} bytes do not hold {documents} documents of {tokens} tokens")
    if found != _padded(label):
        raise ValueError("it holds the tokens of another text")
    ids = _BODY + 8 * documents
    return RowGroupTokens(
        np.frombuffer(mapped, "<u4", tokens, ids),
        np.frombuffer(mapped, "<u4", documents, ids + 4 * tokens),
        np.frombuffer(mapped, "<u8", documents, _BODY),
    )


def _padded(label: bytes) -> bytes:
    if len(label) > LABEL_BYTES:
        raise ValueError(f"a label of {len(label)} bytes is longer than {LABEL_BYTES}")
    return label.ljust(LABEL_BYTES, b"\0")
