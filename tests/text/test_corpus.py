"""The bundled plays are clean and split without leaks; your own files are read, or refused in one clear line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.text import (
    corpus,
    cut_sections,
    is_validation,
    load_shakespeare,
    read_documents,
    split_documents,
)

SCENES = load_shakespeare()


def test_the_corpus_is_786_different_scenes_of_38_plays() -> None:
    assert len(SCENES) == len(set(SCENES)) == 786
    assert len({scene.splitlines()[0] for scene in SCENES}) == 38
    assert sum(map(len, SCENES)) == 5_009_360


def test_no_mark_up_is_left_in_the_corpus() -> None:
    text = "".join(SCENES)
    assert text.isascii()
    assert not re.findall(r"[*_#\\<>&|~`$=\f\t\r]|https?:|\]\(| \n|  |\n\n\n", text)
    bracketed = re.findall(r".*[\[\]].*", text)
    assert all(re.fullmatch(r"\[[^\[\]]+\]", line) for line in bracketed)


def test_every_scene_is_headed_and_set_in_speeches() -> None:
    for scene in SCENES:
        title, heading, gap, *_ = scene.splitlines()
        assert re.match(r"[A-Z][A-Za-z', ]+[a-zIV1-3]$", title)
        assert re.match(r"(ACT [IV]+|PROLOGUE|EPILOGUE)(, (SCENE [IVX]+|PROLOGUE))?(\. .+\.)?$", heading)
        assert gap == ""
        assert scene.endswith("\n")
        first_lines = [block.splitlines()[0] for block in scene.split("\n\n")[1:]]
        untitled = [line for line in first_lines if not re.match(r"\[|[A-Z][A-Z' ,.-]*:$", line)]
        assert untitled == [] or title == "Henry VIII"  # its prologue and epilogue name no speaker


def test_a_damaged_corpus_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "SHAKESPEARE_SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"shakespeare.txt.gz is damaged \(wrong sha256\): install"):
        load_shakespeare()


def test_about_a_tenth_of_the_scenes_is_held_out_and_none_is_on_both_sides() -> None:
    train, validation = split_documents(SCENES)
    assert (len(train), len(validation)) == (709, 77)
    assert set(train) & set(validation) == set()
    assert sorted(train + validation) == sorted(SCENES)
    assert sum(map(len, validation)) / sum(map(len, SCENES)) == pytest.approx(0.1, abs=0.01)


@settings(max_examples=100)
@given(st.lists(st.text(max_size=4), max_size=12), st.floats(0.01, 0.99))
def test_a_split_keeps_every_document_on_one_side_and_leaves_none_empty(texts: list[str], fraction: float) -> None:
    if len(texts) == 1 or len(set(texts)) < 2:
        return
    train, validation = split_documents(texts, fraction)
    assert train
    assert validation
    assert set(train).isdisjoint(validation)
    assert sorted(train + validation) == sorted(texts)


def test_the_hash_depends_on_text_and_key_only_and_follows_the_fraction() -> None:
    texts = [str(number) for number in range(2000)]
    held_out = [text for text in texts if is_validation(text)]
    assert held_out[:5] == ["2", "10", "16", "17", "42"]
    assert 150 < len(held_out) < 250
    assert held_out != [text for text in texts if is_validation(text, key=b"another")]
    assert set(held_out) < {text for text in texts if is_validation(text, 0.5)}
    assert not any(is_validation(text, 0.0) for text in texts)
    assert all(is_validation(text, 1.0) for text in texts)
    assert is_validation("\ud800") in (True, False)


def test_a_lone_document_is_cut_so_that_both_sides_have_text() -> None:
    lines = "".join(f"This is line {number}.\n" for number in range(100))
    train, validation = split_documents([lines])
    assert train
    assert validation
    assert sum(map(len, train + validation)) == len(lines)


@pytest.mark.parametrize("texts", [[], [""], ["x"], ["same", "same"]])
def test_too_little_to_split_is_an_error(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="characters cannot be split into training and validation text: give"):
        split_documents(texts)


def test_a_fraction_that_empties_a_side_is_an_error() -> None:
    for fraction in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match=r"is not between 0 and 1: 0\.1 is usual"):
            split_documents(["a", "b"], fraction)


@settings(max_examples=200)
@given(st.text(st.sampled_from("ab \n\r"), max_size=200), st.integers(1, 20))
def test_sections_join_to_the_text_and_keep_to_their_sizes(text: str, smallest: int) -> None:
    pieces = cut_sections(text, smallest)
    assert "".join(pieces) == text
    if len(text) > 2 * smallest:
        assert all(smallest <= len(piece) <= 2 * smallest for piece in pieces)
    else:
        assert pieces == [text]


def test_sections_end_at_blank_lines_then_at_lines_then_at_spaces() -> None:
    assert cut_sections("aaaa bbbb\ncc\n\ndddddddddddd", 8) == ["aaaa bbbb\ncc\n\n", "dddddddddddd"]
    assert cut_sections("aaaa bbbb\ncc ddddddddddd", 8) == ["aaaa bbbb\n", "cc ddddddddddd"]
    assert cut_sections("aaaa bbbbb cc" + "d" * 10, 8) == ["aaaa bbbbb ", "cc" + "d" * 10]


def write_rows(file: Path, rows: list[object]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def write_table(file: Path, columns: dict[str, list[object]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file


def test_plain_files_are_cut_into_sections_that_join_to_the_file(tmp_path: Path) -> None:
    text = "\n\n".join(SCENES[:9])
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
    assert refusal(tmp_path / "latin.md").endswith("is not UTF-8 text (byte 3): save it as UTF-8")
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
