"""Counts the code lines and words of the core files in reading order: first "an hour", then "the rest".

python scripts/count_reading.py

A code line holds code: blank lines, comments and docstrings do not count. A word is a word of the file as a reader sees
it, lessons, comments and code included: text between spaces that contains a letter or a digit. Of config.py the part
before the line that ends the hour is counted; the rest is about training.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "transformer"
HOUR = ("config", "embeddings", "attention", "feedforward", "block", "model", "loss", "sampling", "generation")
REST = ("kv_cache", "perplexity", "optimizer", "scheduler", "training_utils", "dataset", "trainer")
END_OF_THE_HOUR = "# The hour may stop here"
LAYOUT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
    tokenize.ENDMARKER,
}  # fmt: skip


class Count(NamedTuple):
    """Lines of code and words, of one file or of several."""

    code: int
    words: int


def count(source: str) -> Count:
    """Returns the code lines and the words of a Python source text.

    >>> count('"A lesson."' + chr(10) + "x = [1,  # one" + chr(10) + chr(10) + "     2]" + chr(10))
    Count(code=2, words=6)
    """
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            code -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))  # docstrings, of attributes too
    return Count(len(code), sum(any(map(str.isalnum, word)) for word in source.split()))


def total(names: tuple[str, ...]) -> Count:
    """Returns the sums over these core files."""
    sources = [(PACKAGE / f"{name}.py").read_text(encoding="utf-8") for name in names]
    counts = [count(source.partition(END_OF_THE_HOUR)[0]) for source in sources]
    return Count(sum(one.code for one in counts), sum(one.words for one in counts))


def main() -> None:
    print(f"{'':<20}{'code lines':>12}{'words':>10}")
    for title, names in (("an hour", HOUR), ("the rest", REST)):
        for name in names:
            code, words = total((name,))
            print(f"{name + '.py':<20}{code:>12,}{words:>10,}")
        code, words = total(names)
        print(f"{title + ', in all':<20}{code:>12,}{words:>10,}\n")


if __name__ == "__main__":
    main()
