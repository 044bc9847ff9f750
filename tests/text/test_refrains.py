"""The text of --dataset refrains: the plays, among documents in which words, phrases or passages come back."""

from __future__ import annotations

import hashlib
import random

import pytest

from transformer.config import DataConfig
from transformer.data.open import BUNDLED
from transformer.text import is_validation, load_refrains, load_shakespeare
from transformer.text.refrains import LINE, SHARE, passage, phrases, random_words

LINES = [f"{letter} line of the play, number {number}" for letter in "abcdefgh" for number in range(9)]


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return load_refrains()


def test_the_text_is_the_same_everywhere_and_contains_all_plays(documents: list[str]) -> None:
    scenes = set(load_shakespeare())
    made = [document for document in documents if document not in scenes]
    sizes = [sum(map(len, texts)) for texts in (made, documents)]
    assert abs(sizes[0] / sizes[1] - SHARE) < 0.001
    assert len(documents) - len(made) == len(scenes)
    digest = hashlib.sha256("\f".join(documents).encode()).hexdigest()
    assert digest == "f613edcbea8e058ca41f8791a0d91f6b8eafdb3cf440f6846e53a4cb1c4f28fc"


def test_what_is_repeated_comes_from_training_scenes_alone(documents: list[str]) -> None:
    """So the loss on held-out plays is that on text which the model has not seen."""
    scenes, lines = load_shakespeare(), {True: set[str](), False: set[str]()}
    for scene in scenes:
        lines[is_validation(scene)].update(line for line in scene.split("\n") if len(line) in LINE)
    new = lines[True] - lines[False]
    assert len(new) > 5_000
    assert not new & {line for document in set(documents) - set(scenes) for line in document.split("\n")}


@pytest.mark.parametrize("seed", range(20))
def test_each_document_says_something_again(seed: int) -> None:
    words = random_words([f"w{number}" for number in range(500)], random.Random(seed)).split()
    assert 16 <= len(words) <= 80
    assert len(set(words)) <= 25
    said = phrases(LINES, random.Random(seed)).split()
    assert len(said) >= 18
    lines = passage(LINES, random.Random(seed)).split("\n")
    length = len(set(lines))
    assert 2 <= length <= 4
    assert len(lines) in (2 * length, 3 * length)
    assert all(line == lines[number % length] for number, line in enumerate(lines))
    assert LINES.index(lines[length - 1]) - LINES.index(lines[0]) == length - 1


def test_every_text_that_comes_with_the_project_can_be_named() -> None:
    assert all(DataConfig(name).is_bundled for name in BUNDLED)
    assert BUNDLED["refrains"] is load_refrains
