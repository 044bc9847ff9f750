"""The text of --dataset repeats: invented words, which only the text before can tell, among scenes of the plays."""

from __future__ import annotations

import hashlib
import itertools
import random
import re

from hypothesis import given
from hypothesis import strategies as st

from transformer.text import load_repeats, load_shakespeare
from transformer.text.repeats import between, invented


@given(st.integers(0, 10**6))
def test_a_letter_of_an_invented_text_has_the_same_follower_wherever_it_stands(seed: int) -> None:
    """Else the last occurrence of a letter would not tell what comes next."""
    text = invented(random.Random(seed))
    words = text.split(" ")
    assert 8 <= len(words) <= 16
    assert 1 <= len(set(words)) <= 5
    assert all(re.fullmatch("[a-z]{1,6}", word) for word in words)
    followers: dict[str, set[str]] = {}
    for letter, follower in itertools.pairwise(text):
        followers.setdefault(letter, set()).add(follower)
    assert all(len(found) == 1 for letter, found in followers.items() if letter != " ")


def test_the_text_is_the_same_everywhere_and_three_fifths_of_it_are_invented() -> None:
    documents, scenes = load_repeats(), set(load_shakespeare())
    made = [document for document in documents if document not in scenes]
    sizes = [sum(map(len, texts)) for texts in (made, documents)]
    assert abs(sizes[0] / sizes[1] - 0.6) < 0.001
    assert len(documents) - len(made) == -(-len(scenes) // 4)
    digest = hashlib.sha256("\f".join(documents).encode()).hexdigest()
    assert digest == "47a223dd3066d567a244c538fec52947d0d43ff6d2b8b8ef51c66626de7ce6d3"


def test_random_integers_are_from_low_to_high() -> None:
    chance = random.Random(0)
    assert {between(2, 4, chance) for _ in range(99)} == {2, 3, 4}
