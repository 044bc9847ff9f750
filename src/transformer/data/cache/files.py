"""Where a shard's text lies on disk, in parquet files that know whose text they hold.

    shard_00012.parquet                the whole shard, one row group a unit
    shard_00012.parts/00003.parquet    unit 3, while others are still to come: a *part*
    shard_00012.ENCODING/00003.tokens  its tokens (token_files.py)

A *unit* is one row group of a remote parquet file, a *shard* a run of them. Both kinds of parquet file hold the text
column only, and in their key-value metadata, under `shard`, the identity: source, column, row groups, and for each unit
a checksum of its documents.

Page checksums find what went wrong in the pages. They do not cover page headers and the table of contents, where one
flipped bit makes other text out of the same pages. So every read compares the checksum of the documents as well; it
is made before they are first written, and stays the same when parts are merged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

TEXT, PARTS = "parquet", "parts"
KEY = b"shard"
FORMAT = 1
_NAME = re.compile(r"shard_(\d{5,})\.([\w-]+)", re.ASCII)
_UNIT = re.compile(r"(\d{5,})\.(parquet|tokens)", re.ASCII)


@dataclass(frozen=True)
class Shard:
    """Which text a shard holds; equal means the same text."""

    number: int
    """Its place in the data, and in file names: shard_00012."""
    source: str
    """Where the text comes from, with the revision of its contents."""
    column: str
    """The source's column of text."""
    first_group: int
    """The source's row group that is unit 0."""
    row_groups: int
    """Row groups of the source, one after another."""

    def identity(self) -> dict[str, str | int]:
        """All but the number, which is only a name."""
        return {"source": self.source, "column": self.column, "first_group": self.first_group, "units": self.row_groups}

    def label(self, *more: str | int) -> bytes:
        """16 bytes that stand for the identity, and for what else is given."""
        text = json.dumps([self.identity(), *more], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).digest()


def shard_path(root: Path, number: int, kind: str) -> Path:
    """Where a shard's TEXT file, its PARTS folder or an encoding's folder lies."""
    return root / f"shard_{number:05d}.{kind}"


def unit_path(root: Path, shard: Shard, unit: int, encoding: str | None = None) -> Path:
    """Where the unit's part lies, or its tokens in an encoding. Raises ValueError for a unit or encoding of no file."""
    if not 0 <= unit < shard.row_groups:
        raise ValueError(f"unit {unit} is not in shard {shard.number}, which has {shard.row_groups}")
    folder = shard_path(root, shard.number, PARTS if encoding is None else encoding)
    if encoding in (TEXT, PARTS) or not _NAME.fullmatch(folder.name):
        raise ValueError(f"encoding {encoding!r} cannot name a folder: use letters, digits, _ and -")
    return folder / f"{unit:05d}.{'parquet' if encoding is None else 'tokens'}"


def units_in(folder: Path) -> dict[int, Path]:
    """The files of units in a PARTS or encoding folder, by unit."""
    suffix = "parquet" if folder.suffix == f".{PARTS}" else "tokens"
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        matches = [(_UNIT.fullmatch(path.name), path) for path in folder.iterdir()]
        return {int(match[1]): path for match, path in matches if match and match[2] == suffix}
    return {}


def stock(root: Path) -> dict[int, dict[str, int]]:
    """Bytes on disk by shard number and kind: {12: {"parquet": 400_000_000, "cl100k_base": 520_000_000}}.

    Files and folders of other names are somebody else's, and so are folders without a unit's file in them.
    """
    found: dict[int, dict[str, int]] = {}
    for path in root.iterdir():
        match = _NAME.fullmatch(path.name)
        if match is None or shard_path(root, int(match[1]), match[2]) != path:
            continue
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if match[2] == TEXT:
                files = [path] if path.is_file() else []
            elif not (files := list(units_in(path).values())) and any(path.iterdir()):
                continue
            if files or match[2] != TEXT:  # an empty folder is one that was being removed
                found.setdefault(int(match[1]), {})[match[2]] = sum(map(_size, files))
    return found


def remove(root: Path, number: int, kinds: Iterable[str]) -> None:
    """Removes what is ours of these kinds; what cannot be removed stays."""
    for kind in kinds:
        path = shard_path(root, number, kind)
        with contextlib.suppress(OSError):
            if kind == TEXT:
                path.unlink()
                continue
            for file in units_in(path).values():
                file.unlink(missing_ok=True)
            path.rmdir()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it went since it was listed
        return 0


def checked_column(column: Any) -> Any:
    """The Arrow strings as a ChunkedArray of large_string. Raises ValueError for other types."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise ValueError(f"the text column is {column.type}, wanted string")
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return pa.chunked_array(chunks, column.type).cast(pa.large_string())


def write_part(file: BinaryIO, shard: Shard, unit: int, column: Any) -> None:
    """Writes one unit, of `checked_column`, as a parquet file of one row group."""
    _write(file, shard, unit, [column])


def write_shard(file: BinaryIO, shard: Shard, columns: Iterable[Any]) -> None:
    """Writes all units in order, one row group each, one in memory at a time."""
    _write(file, shard, None, columns)


def _write(file: BinaryIO, shard: Shard, unit: int | None, columns: Iterable[Any]) -> None:
    schema = pa.schema([(shard.column, pa.large_string())])
    settings: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "write_page_checksum": True}
    checksums = []
    with pq.ParquetWriter(file, schema, use_dictionary=False, write_statistics=False, **settings) as writer:
        for column in columns:
            checksums.append(_checksum(column))
            writer.write_table(pa.table([column], schema), row_group_size=max(1, len(column)))
        header = {"format": FORMAT, **shard.identity(), "unit": unit, "checksums": checksums}
        writer.add_key_value_metadata({KEY: json.dumps(header)})


def read_unit(path: Path, shard: Shard, unit: int) -> Any:
    """The unit's documents, a ChunkedArray, from a part or a shard file.

    Raises ValueError where the file is damaged or holds another text, OSError where it cannot be opened or read.
    """
    with _Damage(), pq.ParquetFile(path, page_checksum_verification=True) as file:
        header = _header(file)
        if {name: header.get(name) for name in shard.identity()} != shard.identity():
            raise ValueError("it holds another text")
        whole = header["unit"] is None
        if not whole and header["unit"] != unit:
            raise ValueError(f"it holds unit {header['unit']}, not {unit}")
        group = unit if whole else 0
        column = file.read_row_group(group, columns=[shard.column], use_threads=False)[shard.column]
        if _checksum(column) != header["checksums"][group]:
            raise ValueError("the checksum of its documents is wrong")
        return column


def read_identity(path: Path, number: int) -> Shard:
    """The shard that a file says it belongs to. Raises as read_unit does."""
    with _Damage(), pq.ParquetFile(path) as file:
        header = _header(file)
        found = Shard(number, *(header[name] for name in ("source", "column", "first_group", "units")))
        kinds = [type(value) for value in found.identity().values()]
        if kinds != [str, str, int, int]:
            raise ValueError("its identity is damaged")
        return found


def _header(file: Any) -> dict[str, Any]:
    header = json.loads((file.metadata.metadata or {})[KEY])
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError("it has another format")
    return header


def _checksum(column: Any) -> int:
    """crc32 of the documents' lengths (-1 for null) and bytes; the same however the column is chunked."""
    lengths = pc.fill_null(pc.binary_length(column), -1)
    crc = zlib.crc32(np.ascontiguousarray(lengths.to_numpy(), "<i8").data)
    for chunk in column.drop_null().chunks:
        _, offsets, data = chunk.buffers()
        if len(chunk) and data is not None:
            ends = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
            crc = zlib.crc32(memoryview(data)[ends[0] : ends[-1]], crc)
    return crc


class _Damage:
    """Turns whatever a damaged file raises into a ValueError in one line; errors of the system stay OSError."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or (isinstance(error, OSError) and error.errno):
            return
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise ValueError(reason) from error
