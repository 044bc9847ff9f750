"""The reader's folder: stubs are copied once, nothing of the reader is lost, and progress is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from transformer.exercises.catalogue import EXERCISES
from transformer.exercises.checking import Result
from transformer.exercises.folder import PROGRESS_FILE, make, passed, remember, state_of

MASK = EXERCISES[0]


def test_a_dozen_stubs_are_made_in_reading_order(tmp_path: Path) -> None:
    made = make(tmp_path / "mine")
    assert [file.name for file in made] == [one.file_name for one in EXERCISES]
    assert len(made) == 12
    for file in made:
        text = file.read_text(encoding="utf-8")
        assert "Lesson: src/transformer/" in text
        assert "raise NotImplementedError" in text


def test_files_that_are_there_stay_and_a_deleted_one_comes_back(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / MASK.file_name).write_text("mine", encoding="utf-8")
    (tmp_path / EXERCISES[3].file_name).unlink()
    assert make(tmp_path) == [tmp_path / EXERCISES[3].file_name]
    assert (tmp_path / MASK.file_name).read_text(encoding="utf-8") == "mine"


def test_the_state_follows_the_file(tmp_path: Path) -> None:
    make(tmp_path)
    file = tmp_path / MASK.file_name
    assert state_of(MASK, tmp_path) == "new"
    file.write_text("x = 1\n", encoding="utf-8")
    assert state_of(MASK, tmp_path) == "begun"
    remember(tmp_path, [Result(MASK.name, "passed")])
    assert state_of(MASK, tmp_path) == "passed"
    file.write_bytes(b"x = 1\r\n")  # another system's line ends are no change
    assert state_of(MASK, tmp_path) == "passed"
    file.write_text("x = 2\n", encoding="utf-8")
    assert state_of(MASK, tmp_path) == "changed"
    remember(tmp_path, [Result(MASK.name, "broken")])
    assert state_of(MASK, tmp_path) == "begun"


def test_what_was_not_checked_stays_done(tmp_path: Path) -> None:
    make(tmp_path)
    remember(tmp_path, [Result(MASK.name, "passed")])
    remember(tmp_path, [Result("loss", "broken")])
    assert set(passed(tmp_path)) == {MASK.name}


@pytest.mark.parametrize("contents", ["", "{", "[]", '{"passed": 3}', '{"passed": {"loss": null}}', "\x00"])
def test_a_damaged_progress_file_counts_as_nothing_done(contents: str, tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / PROGRESS_FILE).write_text(contents, encoding="utf-8")
    assert [state_of(one, tmp_path) for one in EXERCISES if state_of(one, tmp_path) == "passed"] == []
    remember(tmp_path, [Result(MASK.name, "passed")])
    assert state_of(MASK, tmp_path) == "passed"
