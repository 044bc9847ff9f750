"""The files of the cache: their paths, sizes and last use, and parquet files whose documents are verified when read.

    shard_00012.parquet                 the whole shard, one row group after another
    shard_00012.parts/00003.parquet     row group 3 of an incomplete shard: a part
    shard_00012.ENCODING/00003.npz      its token ids (token_files.py)

The modification time of a shard's file or folder is its last use. A parquet file holds one column of text, and in its
metadata an identity, which says whose text it is, and a checksum of each row group's documents. Parquet's own page
checksums do not cover page headers and the footer, where a single flipped bit can turn the same pages into other text.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

TEXT, PARTS = "parquet", "parts"
KEY = b"shard"
FORMAT = 1
_SHARD = re.compile(r"shard_(\d{5,})\.([\w-]+)", re.ASCII)
_ROW_GROUP = re.compile(r"(\d{5,})\.(?:parquet|npz|tokens)", re.ASCII)  # earlier versions wrote .tokens


@dataclass(frozen=True)
class Shard:
    """The identity of a shard. Equal shards have the same text."""

    number: int
    """Its position in the dataset, and in file names: shard_00012."""
    source: str
    """The file on the hub, with the hash of its contents."""
    column: str
    """The column that holds the text."""
    first_group: int
    """The file's row group that is row group 0 of the shard."""
    row_groups: int
    """Consecutive row groups of the file."""

    def identity(self, **more: int | None) -> dict[str, Any]:
        """Returns all fields but the number, under the names that files store, and further values."""
        names = {"source": self.source, "column": self.column}
        return {**names, "first_group": self.first_group, "units": self.row_groups, **more}

    def label(self, *more: str | int) -> bytes:
        """Returns a hash of the identity and further values, 16 bytes."""
        text = json.dumps([self.identity(), *more], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).digest()


class Stored(NamedTuple):
    """The files of one kind of a shard: its TEXT, its PARTS, or the token ids of an encoding."""

    number: int
    kind: str
    files: int
    """Row groups, or 1 for TEXT: the whole shard."""
    nbytes: int
    last_use: int
    """In nanoseconds since 1970."""


def shard_path(root: Path, number: int, kind: str) -> Path:
    """Returns the path of a shard's TEXT file, its PARTS folder or an encoding's folder."""
    return root / f"shard_{number:05d}.{kind}"


def row_group_path(root: Path, shard: Shard, row_group: int, encoding: str | None = None) -> Path:
    """Returns the path of a part, or of the row group's tokens. Raises ValueError for an unusable number or name."""
    if not 0 <= row_group < shard.row_groups:
        raise ValueError(f"row group {row_group} is not in shard {shard.number}, which has {shard.row_groups}")
    folder = shard_path(root, shard.number, PARTS if encoding is None else encoding)
    if encoding in (TEXT, PARTS) or not _SHARD.fullmatch(folder.name):
        raise ValueError(f"encoding {encoding!r} cannot name a folder: use letters, digits, _ and -")
    return folder / f"{row_group:05d}.{'parquet' if encoding is None else 'npz'}"


def files_in(folder: Path) -> dict[int, Path]:
    """Returns the files of row groups in a PARTS or encoding folder, by row group."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return {int(match[1]): path for path in folder.iterdir() if (match := _ROW_GROUP.fullmatch(path.name))}
    return {}


def stock(root: Path) -> list[Stored]:
    """Returns what is stored. Other files in the folder are not the cache's and are left alone."""
    found = []
    for path, number, kind in _entries(root):
        files = [path] if kind == TEXT else list(files_in(path).values())
        if files:
            with contextlib.suppress(FileNotFoundError):  # another process has removed it
                size, last_use = sum(file.stat().st_size for file in files), path.stat().st_mtime_ns
                found.append(Stored(number, kind, len(files), size, last_use))
    return found


def touch(root: Path, number: int) -> None:
    """Records a use: the shard's files become the newest, even if the clock was set back."""
    with contextlib.suppress(OSError):
        entries = list(_entries(root))
        now = max([time.time_ns(), *(path.stat().st_mtime_ns + 1000 for path, _, _ in entries)])
        for path, other, _ in entries:
            if other == number:
                os.utime(path, ns=(now, now))


def _entries(root: Path) -> Iterator[tuple[Path, int, str]]:
    """Yields files and folders with their shard's number and their kind."""
    for path in root.iterdir():
        match = _SHARD.fullmatch(path.name)
        if match and path.name == f"shard_{int(match[1]):05d}.{match[2]}" and path.is_file() == (match[2] == TEXT):
            yield path, int(match[1]), match[2]


def remove(root: Path, number: int, kind: str) -> None:
    """Removes the files of this kind, as far as the system allows it."""
    path = shard_path(root, number, kind)
    with contextlib.suppress(OSError):
        if kind == TEXT:
            path.unlink()
            return
        for file in files_in(path).values():
            file.unlink(missing_ok=True)
        path.rmdir()


def checked_column(column: Any) -> Any:
    """Returns Arrow strings as a ChunkedArray of large_string. Raises ValueError for other types."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise ValueError(f"the text column is {column.type}, wanted string")
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return pa.chunked_array(chunks, column.type).cast(pa.large_string())


def write(file: BinaryIO, identity: Mapping[str, Any], columns: Iterable[Any]) -> None:
    """Writes a file of one column; each of `columns` holds the documents of a row group."""
    schema = pa.schema([(identity.get("column", "text"), pa.large_string())])
    settings: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "write_page_checksum": True}
    checksums = []
    with pq.ParquetWriter(file, schema, use_dictionary=False, write_statistics=False, **settings) as writer:
        for column in columns:
            checksums.append(_checksum(column))
            writer.write_table(pa.table([column], schema), row_group_size=max(1, len(column)))
        header = {"format": FORMAT, **identity, "checksums": checksums}
        writer.add_key_value_metadata({KEY: json.dumps(header)})


def read(path: Path, identity: Mapping[str, Any], row_groups: Iterable[int] | None = None) -> list[Any]:
    """Returns the documents of these row groups (None: of all), a ChunkedArray each.

    Raises ValueError for another identity or a wrong checksum, and pyarrow's errors of many types for other damage.
    """
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        header = json.loads((file.metadata.metadata or {}).get(KEY, b"{}"))
        wanted = {"format": FORMAT, **identity}
        if {name: header.get(name) for name in wanted} != wanted:
            raise ValueError("it holds another text")
        if row_groups is None:
            row_groups = range(len(header["checksums"]))
        columns = {group: file.read_row_group(group, use_threads=False).column(0) for group in row_groups}
        if any(_checksum(column) != header["checksums"][group] for group, column in columns.items()):
            raise ValueError("the checksum of its documents is wrong")
        return list(columns.values())


def _checksum(column: Any) -> int:
    """crc32 of the documents' lengths (-1 for null) and bytes; independent of how the column is chunked."""
    lengths = pc.fill_null(pc.binary_length(column), -1)
    crc = zlib.crc32(np.ascontiguousarray(lengths.to_numpy(), "<i8").data)
    for chunk in column.drop_null().chunks:
        _, offsets, data = chunk.buffers()
        if len(chunk) and data is not None:
            ends = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
            crc = zlib.crc32(memoryview(data)[ends[0] : ends[-1]], crc)
    return crc
