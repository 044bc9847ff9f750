r"""White space too long for tiktoken: where the regular expression of an encoding cuts it.

Before merging, tiktoken cuts a text into pieces with a regular expression. `\s+(?!\S)` in it, "white space, except the
last character before a word", keeps a position on a stack for each character, and fails after a million of them. Here
the same cuts are found with string operations, for white space of any length, with LONGEST characters or more:

    "." + 9 line breaks + 9 spaces + "end"      the line breaks directly after punctuation belong to its piece, in
        cl100k_base and bpeN; then comes a piece up to the last line break, a piece of the spaces except the last, and
        the rest of the text, from the last space on

At the end of the text, the expressions of cl100k_base and p50k_base take all the white space that is left as one piece.
p50k_base does not know line breaks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 100_000
"""Characters of white space that are left to tiktoken."""
SPACE = r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
"""The \\s of Unicode; Python's own contains four control characters more."""


@dataclass(frozen=True)
class SpaceRule:
    """How the regular expression of an encoding treats white space."""

    after_punctuation: str
    """Line breaks that belong to the piece of the punctuation directly before them."""
    punctuation_is_not: str
    """Unicode categories, by their first letter, of the characters that are not punctuation."""
    breaks: str
    """Characters up to the last of which white space is a piece."""
    end_is_one: bool
    """Whether all white space at the end of the text is one piece."""


def cut_long_spaces(text: str, rule: SpaceRule) -> Iterator[tuple[str, bool]]:
    """Yields the text in parts: (part, whether it is a single piece). A text without long white space is one part."""
    begin = 0
    for run in _long_runs(text):
        start, end = run.span()
        before = text[start - 1 : start]
        if before and unicodedata.category(before)[0] not in rule.punctuation_is_not:
            start += len(run[0]) - len(run[0].lstrip(rule.after_punctuation))
        yield text[begin:start], False
        begin = start
        last = max((text.rfind(mark, start, end) for mark in rule.breaks), default=-1) + 1
        if end == len(text) and rule.end_is_one:
            last = end
        if last > begin:
            yield text[begin:last], True
            begin = last
        last = end if end == len(text) else end - 1  # the last one belongs to what follows
        if last > begin:
            yield text[begin:last], True
            begin = last
    yield text[begin:], False


def _long_runs(text: str) -> Iterator[re.Match[str]]:
    """Yields the runs of LONGEST or more characters of white space. Texts without any are passed over quickly."""
    half = LONGEST // 2  # each such run contains a whole block of this size
    if any(text[start : start + half].isspace() for start in range(0, len(text) - half + 1, half)):
        yield from (run for run in re.finditer(f"{SPACE}+", text) if len(run[0]) >= LONGEST)
