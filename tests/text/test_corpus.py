"""The bundled plays are clean, and documents are split without leaks."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.text import (
    corpus,
    cut_sections,
    is_validation,
    load_shakespeare,
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
