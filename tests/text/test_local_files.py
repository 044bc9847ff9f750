"""Your own files are read whatever their encoding and compression, or refused in one clear line; nothing is silent."""

from __future__ import annotations

import bz2
import codecs
import gzip
import importlib.util
import json
import lzma
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from transformer.text import load_shakespeare, plain_documents, read_documents, read_local_text

SCENES = load_shakespeare()[:9]


def write_rows(file: Path, rows: list[object]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def write_table(file: Path, columns: dict[str, list[object]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file


def test_plain_files_are_cut_into_sections_that_join_to_the_file(tmp_path: Path) -> None:
    text = "\n\n".join(SCENES)
    for name in ("plays.txt", "PLAYS.MD"):
        file = tmp_path / name
        file.write_bytes(b"\xef\xbb\xbf" + text.encode())
        documents = list(read_documents(file))
        assert "".join(documents) == text
        assert len(documents) > 10
        assert all(4000 <= len(document) <= 8000 for document in documents)


def test_rows_are_documents_and_empty_rows_are_none(tmp_path: Path) -> None:
    values: list[object] = ["one\n\ntwo", None, "", " ", "é \ud83d\ude00"]
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": value, "id": 1} for value in values])
    rows.write_text(rows.read_text() + "\n\n", encoding="utf-8")
    assert list(read_documents(rows)) == ["one\n\ntwo", "é 😀"]
    table = write_table(tmp_path / "rows.parquet", {"body": ["one\n\ntwo", None, "", " ", "é 😀"]})
    assert list(read_documents(table, text_column="body")) == ["one\n\ntwo", "é 😀"]


def test_folders_are_read_in_order_of_path_without_hidden_or_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "b" / "1.txt").write_text("third")
    (tmp_path / "a.md").write_text("first")
    (tmp_path / "a.txt").write_text("second")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\x00")
    (tmp_path / ".git" / "x.txt").write_text("hidden")
    write_rows(tmp_path / "c.jsonl", [{"text": "fourth"}])
    assert list(read_documents(tmp_path)) == ["first", "second", "third", "fourth"]


def refusal(path: Path, text_column: str = "text") -> str:
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        list(read_documents(path, text_column))
    message = str(error.value)
    assert "\n" not in message
    return message


def test_paths_that_cannot_be_used_are_refused_on_the_call(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere does not exist: give a file or folder of \.txt, \.md, "):
        read_documents(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"has no usable file: put \.txt, \.md, \.jsonl, \.parquet files into"):
        read_documents(tmp_path)
    (tmp_path / "book.pdf").touch()
    with pytest.raises(ValueError, match=r"book\.pdf is not \.txt, .*: rename it if it is plain text"):
        read_documents(tmp_path / "book.pdf")


def test_files_without_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    assert "holds no text: give some" in refusal(tmp_path / "empty.txt")
    assert "holds no text: give some" in refusal(tmp_path)
    assert "holds no text" in refusal(write_rows(tmp_path / "rows.jsonl", [{"text": None}]))
    assert "holds no text" in refusal(write_table(tmp_path / "rows.parquet", {"text": ["", "\n"]}))


def test_binary_junk_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nul.txt").write_bytes(b"text\0text")
    assert refusal(tmp_path / "nul.txt").endswith("is binary, not text (NUL at character 4): remove it")
    (tmp_path / "latin.md").write_bytes("café".encode("latin-1"))
    assert refusal(tmp_path / "latin.md").endswith(
        "is not UTF-8 text: byte 3 is 0xe9; save it as UTF-8; for Latin-1, `iconv -f latin1 -t utf-8` does that"
    )
    (tmp_path / "junk.parquet").write_bytes(b"PAR1 but not really")
    assert "junk.parquet is not a readable parquet file" in refusal(tmp_path / "junk.parquet")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": ', r"line 2 is not JSON \(.*\): put one object on each line"),
        (b"[" * 100_000, r"line 2 is not JSON \(.*\): put one object on each line"),
        (b'["text"]', r'line 2 is not an object: wanted \{"text": \.\.\.\}'),
        (b'{"body": "x", "id": 1}', r"line 2 has no field 'text': its fields are 'body', 'id'; name the one"),
        (b'{"text": 5}', r"line 2: field 'text' is int, wanted a string"),
        (b"\xff", r"line 2 is not UTF-8 text"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(tmp_path: Path, line: bytes, reason: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"text": "good"}\n' + line + b"\n")
    assert re.search(reason, refusal(file))


def test_a_missing_or_wrong_column_is_refused(tmp_path: Path) -> None:
    table = write_table(tmp_path / "rows.parquet", {"body": ["x"], "id": [1]})
    assert refusal(table).endswith("has no column 'text': its columns are 'body', 'id'; name the one with the text")
    assert refusal(table, "id").endswith("column 'id' is int64, wanted string")


# Encodings and compression

MARKED = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.mark.parametrize("encoding", MARKED)
def test_text_with_a_byte_order_mark_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    """PowerShell's `>` writes UTF-16; it was refused as binary."""
    (tmp_path / "notes.txt").write_bytes(MARKED[encoding] + "né 😀".encode(encoding))
    rows = "\r\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in ("né", "😀"))
    (tmp_path / "rows.jsonl").write_bytes(MARKED[encoding] + rows.encode(encoding))
    assert list(read_documents(tmp_path / "notes.txt")) == ["né 😀"]
    assert list(read_documents(tmp_path / "rows.jsonl")) == ["né", "😀"]


def test_half_a_utf_16_character_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stdin is not UTF-16 text: byte 2 is 0x41; save it as UTF-8$"):
        plain_documents(codecs.BOM_UTF16_LE + b"A", "stdin")


PACKED: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("suffix", PACKED)
def test_compressed_files_are_read_and_damaged_ones_refused(tmp_path: Path, suffix: str) -> None:
    rows = "".join(json.dumps({"text": text}) + "\n" for text in ("one", "two"))
    (tmp_path / f"a.jsonl{suffix}").write_bytes(PACKED[suffix](rows.encode()))
    (tmp_path / f"b.TXT{suffix.upper()}").write_bytes(PACKED[suffix](b"three"))
    assert list(read_documents(tmp_path)) == ["one", "two", "three"]
    cut = tmp_path / f"cut.txt{suffix}"
    cut.write_bytes(PACKED[suffix](b"three" * 1000)[:-9])
    assert re.search(r"cannot be (unpacked|read)", refusal(cut))
    cut.write_bytes(b"not packed at all")
    assert re.search(r"cannot be (unpacked|read)", refusal(cut))


@pytest.mark.skipif(importlib.util.find_spec("compression") is not None, reason="this Python can unpack .zst")
def test_a_compression_that_this_python_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt.zst").write_bytes(b"(\xb5/\xfd")
    assert refusal(tmp_path / "notes.txt.zst").endswith("this Python cannot unpack .zst files: unpack it first")


# Folders


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets few users make links")
def test_linked_folders_are_entered_once_and_links_that_lead_back_end(tmp_path: Path) -> None:
    """A folder of links to other folders gave "no usable file"; without a guard the loop would have no end."""
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "a.txt").write_text("linked")
    (tmp_path / "notes" / "own").mkdir(parents=True)
    (tmp_path / "notes" / "own" / "b.txt").write_text("own")
    (tmp_path / "notes" / "first").symlink_to("../elsewhere")
    (tmp_path / "notes" / "second").symlink_to("../elsewhere")
    (tmp_path / "notes" / "own" / "back").symlink_to("..")
    (tmp_path / "notes" / "self").symlink_to("self")
    text = read_local_text(tmp_path / "notes")
    assert text.documents == ["linked", "own"]
    assert text.description == ("2 files, 2 documents, 9 bytes of text; 1 file skipped (1 broken link, pipe or device)")


def test_what_is_not_read_is_counted_by_kind(tmp_path: Path) -> None:
    for name in ("a.txt", "b.csv", "c.csv", "d.PDF", "e.csv.gz", "f", "g.png", "h.png", ".hidden"):
        (tmp_path / name).write_text("text")
    told: list[object] = []
    assert list(read_documents(tmp_path, notify=told.append)) == ["text"]
    assert told == [f"{tmp_path}: 7 files skipped (2 .csv, 2 .png, 1 .PDF, 1 .csv.gz, 1 others)"]
    assert read_local_text(tmp_path).description.startswith("1 file, 1 document, 4 bytes of text; 7 files skipped (")


def test_files_of_training_runs_are_not_text_and_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "metrics.jsonl").write_text("{}")  # of a run in this folder itself
    (tmp_path / "run" / "wandb").mkdir(parents=True)
    for name in ("training_state_byte.pt", "metrics.jsonl", "wandb/requirements.txt"):
        (tmp_path / "run" / name).write_text("{}")
    text = read_local_text(tmp_path)
    assert text.documents == ["text"]
    assert text.description.endswith("2 files skipped (1 metrics.jsonl, 1 folder of a run)")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_named_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert "pipe.txt is neither a file nor a folder" in refusal(tmp_path / "pipe.txt")
    assert "has no usable file" in refusal(tmp_path)


# The digest


def test_the_digest_is_of_the_documents_and_not_of_their_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"first")
    (tmp_path / "b.txt").write_bytes(b"second")
    digest = read_local_text(tmp_path).digest
    (tmp_path / "b.txt").rename(tmp_path / "c.md")
    (tmp_path / "a.txt").write_bytes(codecs.BOM_UTF16_LE + "first".encode("utf-16-le"))
    (tmp_path / "d.csv").write_bytes(b"not read")
    assert read_local_text(tmp_path).digest == digest
    rows = write_rows(tmp_path / "a.jsonl", [{"text": "first"}, {"text": "second"}])
    assert read_local_text(rows).digest == digest


@pytest.mark.parametrize("texts", [["first"], ["second", "first"], ["first", "second", "third"], ["firstsecond"]])
def test_the_digest_changes_with_every_document(tmp_path: Path, texts: list[str]) -> None:
    before = read_local_text(write_rows(tmp_path / "a.jsonl", [{"text": "first"}, {"text": "second"}])).digest
    after = read_local_text(write_rows(tmp_path / "b.jsonl", [{"text": text} for text in texts])).digest
    assert after != before
