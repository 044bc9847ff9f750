"""Token files: the token ids of one row group, as a NumPy .npz archive, whose checksums are verified by every read."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class RowGroupTokens:
    """The tokens of a row group's documents, one document after another. Raises ValueError if the arrays disagree."""

    ids: Ids
    """(tokens,) uint32, an end-of-text after each document."""
    lengths: Ids
    """(documents,) uint32: each document's tokens, its end-of-text included."""
    digests: npt.NDArray[np.uint64]
    """(documents,) uint64: a hash of each document's text. It decides the document's side of any split, so that the
    validation fraction can change without tokenizing again."""

    def __post_init__(self) -> None:
        kinds = [f"{array.dtype}[{array.ndim}]" for array in (self.ids, self.lengths, self.digests)]
        if kinds != ["uint32[1]", "uint32[1]", "uint64[1]"]:
            raise ValueError(f"row group tokens are flat arrays of uint32, uint32 and uint64, not {', '.join(kinds)}")
        documents, tokens = len(self.lengths), int(self.lengths.sum(dtype=np.uint64))
        if (documents, tokens) != (len(self.digests), len(self.ids)):
            raise ValueError(
                f"{documents} lengths with the sum {tokens} do not fit {len(self.digests)} digests and "
                f"{len(self.ids)} ids"
            )

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.digests.nbytes + self.ids.nbytes + self.lengths.nbytes

    def side(self, fraction: float, validation: bool) -> Ids:
        """Returns the ids of the validation documents, whose digest is below fraction * 2**64, or of the others.

        uint32, not to be modified: a view of `ids` if all documents are on that side.
        """
        below = math.ceil(fraction * 2**64)  # exact: scaling by a power of two does not round
        if below <= 0 or below >= 2**64:
            return self.ids if validation == (below > 0) else self.ids[:0]
        chosen = (self.digests < np.uint64(below)) == validation
        return self.ids if chosen.all() else self.ids[np.repeat(chosen, self.lengths)]


def write(file: BinaryIO, tokens: RowGroupTokens, label: bytes) -> None:
    """Writes a token file. `label` identifies the text and the encoding; reading requires the same one."""
    arrays: dict[str, Any] = {"ids": tokens.ids, "lengths": tokens.lengths, "digests": tokens.digests}
    np.savez(file, label=np.frombuffer(label, np.uint8), **arrays)


def read(path: Path, label: bytes) -> RowGroupTokens:
    """Returns the tokens. Raises ValueError for another label, and errors of many types for a damaged file."""
    with np.load(io.BytesIO(path.read_bytes())) as arrays:
        if arrays["label"].tobytes() != label:
            raise ValueError("it holds the tokens of another text")
        return RowGroupTokens(*(arrays[name] for name in ("ids", "lengths", "digests")))
