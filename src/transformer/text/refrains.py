"""The text of `--dataset refrains`: the bundled plays, and among them short documents that say things several times.

Three fifths of the text are the plays. The rest is made of their words and lines, and in each document something comes
back:

    words       "sir hole and sir Know see You a Know see You a sir hole and"        random words, in groups
    phrases     "To deck thy body, my lord, To deck thy body, my lord, To deck"      beginnings of lines
    passages    two to four lines in a row, said two or three times

The groups and the phrases come in random order, so that counting back does not find what followed the last time: a
model has to find the last occurrence of a token and copy what came after it, which is what an induction head does
(interpret/heads.py). Random words can be predicted in no other way. Passages are what a reader tries first: a text, and
the same text again. The plays alone give too little reason: a model that was trained on them for six epochs had no
induction head.

All that is repeated comes from scenes of the training part (corpus.py), so nothing of a held-out scene is in the text.
"""

from __future__ import annotations

import random
import re

from .corpus import is_validation, load_shakespeare
from .repeats import between, shuffled

SHARE = 0.4
"""Fraction of the text that is said several times."""
LINE = range(16, 60)
"""Lengths of the lines that are used, in characters: most lines of verse, no stage directions of several sentences."""


def load_refrains() -> list[str]:
    """Returns the documents, about 8 MB, in random order; always the same ones."""
    chance = random.Random(0)
    scenes = load_shakespeare()
    known = [scene for scene in scenes if not is_validation(scene)]
    words = [word for scene in known for word in re.findall("[A-Za-z']+", scene)]
    lines = [line for scene in known for line in scene.split("\n") if len(line) in LINE]
    documents, missing = list(scenes), sum(map(len, scenes)) * SHARE / (1 - SHARE)
    makers = (random_words, phrases, passage)
    while missing > 0:
        make = makers[len(documents) % len(makers)]
        documents.append(make(words if make is random_words else lines, chance))
        missing -= len(documents[-1])
    return shuffled(documents, chance)


def random_words(words: list[str], chance: random.Random) -> str:
    """Returns two to five groups of two to five words, 8 to 16 of them, in random order.

    >>> random_words(["no", "yes"], random.Random(1))[:41]
    'yes no no no yes no no yes no yes yes no '
    """
    groups = [
        " ".join(drawn(words, chance) for _ in range(between(2, 5, chance))) for _ in range(between(2, 5, chance))
    ]
    return " ".join(drawn(groups, chance) for _ in range(between(8, 16, chance)))


def phrases(lines: list[str], chance: random.Random) -> str:
    """Returns the first three to eight words of two to five lines, 6 to 12 of these beginnings, in random order."""
    beginnings = [" ".join(drawn(lines, chance).split()[: between(3, 8, chance)]) for _ in range(between(2, 5, chance))]
    return " ".join(drawn(beginnings, chance) for _ in range(between(6, 12, chance)))


def passage(lines: list[str], chance: random.Random) -> str:
    """Returns two to four lines that follow one another, two or three times."""
    length = between(2, 4, chance)
    start = between(0, len(lines) - length, chance)
    return "\n".join(["\n".join(lines[start : start + length])] * between(2, 3, chance))


def drawn(items: list[str], chance: random.Random) -> str:
    return items[between(0, len(items) - 1, chance)]
