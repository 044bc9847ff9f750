"""JSON files of other programs: anything but a JSON object is refused with one line that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from transformer.interop.errors import SourceError
from transformer.interop.json_files import json_object, read_json


def test_an_object_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "n": [1, null]}', encoding="utf-8")
    assert read_json(tmp_path / "config.json") == {"model_type": "llama", "n": [1, None]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a JSON file"),
        (b"[1]", "holds a list"),
        (b"null", "holds a NoneType"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not"),
        (b"\xff\xfe{}", "not a JSON file"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not a JSON file"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested more than 50 levels deep"),
        (b'{"a": ' + b"[" * 50 + b"]" * 50 + b"}", "nested more than 50 levels deep"),
        (b'{"a": 1', "not a JSON file"),
    ],
)
def test_anything_else_is_refused_with_one_line(content: bytes, reason: str) -> None:
    with pytest.raises(SourceError, match=reason) as error:
        json_object(content, "config.json")
    assert str(error.value).startswith("config.json: ")
    assert "\n" not in str(error.value)


def test_values_may_be_nested_as_deep_as_any_real_file_has_them() -> None:
    content = b'{"a": ' + b'[{"b": ' * 24 + b"1" + b"}]" * 24 + b"}"
    assert json_object(content, "config.json")["a"][0]["b"][0]["b"]


def test_a_file_that_is_missing_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"config\.json: No such file"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text(" " * 101, encoding="utf-8")
    with pytest.raises(SourceError, match="101 bytes are too many"):
        read_json(tmp_path / "config.json", largest=100)
