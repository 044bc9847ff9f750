"""Text files on this machine: which files a folder holds, their encodings, and the documents in them.

`.jsonl` and `.parquet` files have one document per row. `.txt` and `.md` files are cut into documents at blank lines.
All but parquet may be compressed (`notes.txt.gz`). A folder is read with its subfolders, linked ones included, each of
them once, in the order of the paths; names that start with a dot are ignored. Text is UTF-8, or UTF-16 or UTF-32 with a
byte-order mark. Every file that is not read, and every folder of a training run, is counted and named.
"""

from __future__ import annotations

import codecs
import hashlib
import importlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .corpus import cut_sections

UNPACKERS = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma", ".zst": "compression.zstd"}
"""By suffix: the module of the standard library that opens the file. compression.zstd came with Python 3.14."""
MARKS = (
    (codecs.BOM_UTF8, "UTF-8-sig"),
    (codecs.BOM_UTF32_LE, "UTF-32"),  # before UTF-16, whose mark is the first half of this one
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
"""Byte-order marks, and the encodings that they announce."""
METRICS = "metrics.jsonl"
"""A file of a training run that is no text, and in the folder of a text if its run is there too."""
RUN_FILES = (".run.lock", "training_state_*", "model_epoch_*.pt")
"""Files of a training run: a subfolder with one is not text. A run may be inside the folder of its own text."""
NAMED_KINDS = 4
"""Kinds of skipped files that are named, the most frequent first."""


@dataclass(frozen=True)
class LocalText:
    """The documents of a text on this machine."""

    documents: list[str]
    digest: str
    """Changes if a document is added, removed, edited or moved; independent of paths, encodings and compression."""
    description: str
    """The number of files, documents and bytes, and the files that were skipped, in one line."""

    @classmethod
    def of(cls, documents: Iterable[str], files: int = 1, skipped: str = "") -> LocalText:
        """Reads the documents, and computes their digest and description."""
        found, digest, size = list(documents), hashlib.blake2b(digest_size=16), 0
        for document in found:
            contents = document.encode("utf-8", "surrogatepass")
            digest.update(len(contents).to_bytes(8, "big") + contents)
            size += len(contents)
        counts = f"{_counted(files, 'file')}, {_counted(len(found), 'document')}, {size:,} bytes of text"
        return cls(found, digest.hexdigest(), f"{counts}; {skipped}" if skipped else counts)


def read_local_text(path: Path, text_column: str = "text") -> LocalText:
    """Returns all documents of a file or folder. Raises ValueError as read_documents does."""
    files, skipped = text_files(path)
    return LocalText.of(_documents(path, files, text_column), len(files), skipped)


def read_documents(
    path: Path, text_column: str = "text", notify: Callable[[str], object] = lambda line: None
) -> Iterator[str]:
    """Yields the documents of a file, or of all usable files in a folder and its subfolders, in order of their paths.

    `.jsonl` and `.parquet` have a document in the `text_column` of each row; null and blank texts are skipped. A `.txt`
    or `.md` file is cut by `cut_sections`, so that a single long file can be split too; it is read into memory at once.
    `notify` receives a line if files of a folder are skipped. Raises ValueError: when called, for an unusable path;
    while iterating, for unreadable contents.
    """
    files, skipped = text_files(path)
    if skipped:
        notify(f"{path}: {skipped}")
    return _documents(path, files, text_column)


def text_files(path: Path) -> tuple[list[Path], str]:
    """Returns the usable files of a path, and a clause that counts the others by kind, or "" if there are none.

    Raises ValueError for a path without a usable file.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist: give a file or folder of {', '.join(READERS)}")
    if path.is_dir():
        found = _files_in(path)
        usable = {file: file.is_file() and kind_of(file) is not None and file.name != METRICS for file in found}
        files = [file for file in found if usable[file]]
        if not files:
            raise ValueError(f"folder {path} has no usable file: put {', '.join(READERS)} files into it")
        return files, _skipped(file for file in found if not usable[file])
    if not path.is_file():
        raise ValueError(f"{path} is neither a file nor a folder: save its text in a file")
    if kind_of(path) is None:
        raise ValueError(f"{path} is not {', '.join(READERS)}: rename it if it is plain text, else convert it")
    return [path], ""


def kind_of(file: Path) -> str | None:
    """Returns the key of the file's reader, by its suffix before that of the compression; None if there is no reader.

    >>> kind_of(Path("notes.TXT")), kind_of(Path("pages.jsonl.gz")), kind_of(Path("table.csv"))
    ('.txt', '.jsonl', None)
    """
    suffix = file.suffix.lower()
    if suffix in UNPACKERS:
        suffix = file.with_suffix("").suffix.lower()
        return suffix if suffix in READERS and suffix != ".parquet" else None
    return suffix if suffix in READERS else None


def _files_in(folder: Path) -> list[Path]:
    """Returns the files of a folder and its subfolders by path, and the folders of runs. Linked folders come last."""
    found, seen, subfolders, links = list[Path](), set[Path](), [folder], list[Path]()
    while subfolders or links:
        here = (subfolders or links).pop(0)
        if (resolved := here.resolve()) in seen:  # a second link, or one that leads back
            continue
        seen.add(resolved)
        try:
            entries = sorted(entry for entry in here.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            raise ValueError(f"folder {here} cannot be read: {error.strerror or error}") from error
        if here != folder and any(any(here.glob(name)) for name in RUN_FILES):
            found.append(here)
            continue
        for entry in entries:
            kept = (links if entry.is_symlink() else subfolders) if entry.is_dir() else found
            kept.append(entry)
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def _skipped(files: Iterable[Path]) -> str:
    """Returns a clause such as "3 files skipped (2 .csv, 1 .png)", or "" for no files."""
    kinds = Counter(map(_kind_skipped, files))
    named = [f"{count} {kind}" for kind, count in kinds.most_common(NAMED_KINDS)]
    if others := sum(count for _, count in kinds.most_common()[NAMED_KINDS:]):
        named.append(f"{others} others")
    return f"{_counted(kinds.total(), 'file')} skipped ({', '.join(named)})" if named else ""


def _kind_skipped(file: Path) -> str:
    if file.is_dir():
        return "folder of a run"
    if not file.is_file():
        return "broken link, pipe or device"
    if file.name == METRICS:
        return METRICS
    return "".join(file.suffixes[-2 if file.suffix.lower() in UNPACKERS else -1 :]) or "without a suffix"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + "s" * (count != 1)


def _documents(path: Path, files: list[Path], text_column: str) -> Iterator[str]:
    empty = True
    for file in files:
        try:
            with _opened(file) as stream:
                for document in READERS[kind_of(file) or ""](stream, str(file), text_column):
                    if document.strip():
                        empty = False
                        yield document
        except OSError as error:
            raise ValueError(f"{file} cannot be read: {error.strerror or error}") from error
        except Exception as error:  # each unpacker has its own errors
            if isinstance(error, ValueError) or file.suffix.lower() not in UNPACKERS:
                raise
            raise ValueError(f"{file} cannot be unpacked ({error}): compress it again") from error
    if empty:
        raise ValueError(f"{path} holds no text: give some; training needs a few thousand characters at least")


def _opened(file: Path) -> io.BufferedReader:
    """Opens a file for reading its bytes, unpacked."""
    module = UNPACKERS.get(file.suffix.lower())
    if module is None:
        return file.open("rb")
    try:
        unpacker = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{file}: this Python cannot unpack {file.suffix} files: unpack it first") from error
    return io.BufferedReader(unpacker.open(file, "rb"))


def plain_documents(contents: bytes, where: str) -> list[str]:
    """Returns the documents of plain text, cut like a file's. Raises ValueError if it is not text; `where` names it."""
    return cut_sections(_checked(decode_text(contents, where), where))


def decode_text(contents: bytes, where: str) -> str:
    """Returns the text of bytes in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark, which is removed.

    Raises ValueError, naming `where`, for any other encoding. Which one it is cannot be known, so none is guessed.
    """
    return _decoded(contents, next((encoding for mark, encoding in MARKS if contents.startswith(mark)), "UTF-8"), where)


def _decoded(contents: bytes, encoding: str, where: str) -> str:
    try:
        return contents.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig")
        byte = f"byte {error.start} is {error.object[error.start]:#04x}"
        advice = "save it as UTF-8" + "; for Latin-1, `iconv -f latin1 -t utf-8` does that" * (name == "UTF-8")
        raise ValueError(f"{where} is not {name} text: {byte}; {advice}") from error


def _checked(text: str, where: str) -> str:
    """Returns the text. Raises ValueError if it contains NUL."""
    if "\0" in text:
        raise ValueError(f"{where} is binary, not text (NUL at character {text.index(chr(0))}): remove it")
    return text


def _read_plain(stream: io.BufferedReader, where: str, text_column: str) -> Iterator[str]:
    yield from plain_documents(stream.read(), where)


def _lines(stream: io.BufferedReader, where: str) -> Iterable[bytes]:
    """Returns the lines of a file, in UTF-8."""
    if stream.peek(4).startswith(tuple(mark for mark, encoding in MARKS if encoding != "UTF-8-sig")):
        return decode_text(stream.read(), where).encode().split(b"\n")
    return stream


def _read_jsonl(stream: io.BufferedReader, file: str, text_column: str) -> Iterator[str]:
    for number, line in enumerate(_lines(stream, file), 1):
        where = f"{file} line {number}"
        text = _checked(_decoded(line, "UTF-8-sig", where), where)
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is not JSON ({error}): put one object on each line") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where} is not an object: wanted {{{json.dumps(text_column)}: ...}}")
        if text_column not in row:
            raise ValueError(
                f"{where} has no field {text_column!r}: its fields are {_names(row)}; name the one with the text"
            )
        value = row[text_column]
        if not isinstance(value, str | None):
            raise ValueError(f"{where}: field {text_column!r} is {type(value).__name__}, wanted a string")
        yield value or ""


def _read_parquet(stream: io.BufferedReader, file: str, text_column: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    row = 0
    try:
        with pyarrow.parquet.ParquetFile(stream) as table:
            schema = table.schema_arrow
            if text_column not in schema.names:
                raise ValueError(
                    f"{file} has no column {text_column!r}: its columns are {_names(schema.names)}; "
                    "name the one with the text"
                )
            kind = schema.field(text_column).type
            kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind  # a pandas category
            text_kinds = (pyarrow.types.is_string, pyarrow.types.is_large_string, pyarrow.types.is_string_view)
            if not any(is_text(kind) for is_text in text_kinds):
                raise ValueError(f"{file}: column {text_column!r} is {kind}, wanted string")
            for batch in table.iter_batches(batch_size=1024, columns=[text_column]):
                for value in batch.column(0):
                    row += 1
                    yield value.as_py() or ""
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} row {row}: column {text_column!r} is not UTF-8 text: write it again") from error
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{file} is not a readable parquet file ({reason}): write it again") from error


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


READERS: dict[str, Callable[[io.BufferedReader, str, str], Iterator[str]]] = {
    ".txt": _read_plain,
    ".md": _read_plain,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
