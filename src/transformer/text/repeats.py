"""The text of `--dataset repeats`: sentences of invented words, among scenes of the bundled plays.

Three fifths of the text are documents such as "qzh vbx qzh lmno vbx": two to five words of random letters, no letter
twice among them, said in random order. Each document has words of its own, so that nothing learnt from another document
helps: only what came before can tell the next letter. A model that is to predict it must find the last occurrence of a
letter and copy what followed it there, which is what an induction head does (interpret/heads.py). Random order keeps it
from counting back instead, which it would learn first if the words came in a fixed rhythm.

The scenes, a quarter of the plays, give the model a reason to attend to the previous letter, which is half of the
mechanism. Without them it did not form in 2,500 steps: benchmarks/results/induction_experiments.md.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterable
from typing import TypeVar

from .corpus import load_shakespeare

T = TypeVar("T")
SCENES = 4
"""One scene in so many is in the text."""
SHARE = 0.6
"""Fraction of the text that is invented words."""


def load_repeats() -> list[str]:
    """Returns the documents, about 3 MB, in random order; always the same ones."""
    chance = random.Random(0)
    scenes = load_shakespeare()[::SCENES]
    documents, missing = list(scenes), sum(map(len, scenes)) * SHARE / (1 - SHARE)
    while missing > 0:
        documents.append(invented(chance))
        missing -= len(documents[-1])
    return shuffled(documents, chance)


def invented(chance: random.Random) -> str:
    """Returns 8 to 16 words: two to five invented ones of two to six letters, in random order.

    >>> invented(random.Random(5))
    'rns rns qglzxv rns rns rns qglzxv rns rns'
    """
    letters = shuffled(string.ascii_lowercase, chance)
    words = []
    for _ in range(between(2, 5, chance)):
        length = between(2, 6, chance)
        words.append("".join(letters[:length]))
        letters = letters[length:]
    words = [word for word in words if word]  # the letters may have run out
    return " ".join(words[between(0, len(words) - 1, chance)] for _ in range(between(8, 16, chance)))


# random() gives the same numbers in every version of Python; shuffle() and randint() may not.


def between(low: int, high: int, chance: random.Random) -> int:
    """Returns a random integer from low to high, both included."""
    return low + int((high + 1 - low) * chance.random())


def shuffled(items: Iterable[T], chance: random.Random) -> list[T]:
    return sorted(items, key=lambda _: chance.random())
