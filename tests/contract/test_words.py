"""Source and documentation use the field's terms: a list of unclear words and old names must not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GLOBS = (
    "main.py", "src/**/*.py", "commands/**/*.py", "benchmarks/*.py", "README.md", "CONTRIBUTING.md", "docs/**/*.md",
    "index.html", "page/*.js",
)  # fmt: skip
FILES = sorted(path for pattern in GLOBS for path in ROOT.glob(pattern))

INSTEAD = {
    r"\bby heart\b": "memorised",
    r"\bsurely\b": "a number, or a statement of significance",
    r"\bknow(s|ing)? nothing\b": "uniform baseline",
    r"\bat (most|least) so many\b": "a number or its name",
    r"\b(is|are|was) told\b|\btold (once|apart)\b": "is passed, is reported, is distinguished",
    r"\bgo(es)? on (with|from|exactly|until)\b|--resume goes on\b|\bto go on\b": "continues, resumes",
    r"\bstopped to (fall|improve)\b": "stopped falling, stopped improving",
    r"\blooks? at (the )?validation\b|\blooks_next\b|\blooks_again\b": "evaluation, evaluation_pending",
    r"\bgave_up\b|\bLookGivenUpError\b": "early_stopped, EvaluationStopped",
    r"\bthe bend\b": "activation function",
    r"\bfiller\b": "padding",
    r"\bnarrow(er)? numbers\b": "reduced precision",
    r"\bimport law\b|\bthe house\b": "import rules",
    r"\bfor want of\b": "because there is no",
    r"\bfaster twins?\b|\b(the|each|its) twins?\b": "faster version, equivalent",
    r"\bput together\b": "assembled",
    r"\bheld (against|equal)\b|\bholds it equal\b": "compared with",
    r"\bended rows\b": "finished sequences",
    r"\brooms\b": "layers, packages",
    r"\bshall\b": "will, must",
    r"\banew\b": "again, from the start",
    r"\bsurprise at\b": "surprisal",
    r"\b(tokens?|FLOPs|bytes?|nats?|bits?|numbers?|rows|steps|documents) an? "
    r"(token|step|second|epoch|row|parameter|process|layer|document|minute|hour|byte|position)\b": "per",
}
"""Pattern -> the term to use."""
ALLOWED = {
    ("src/transformer/reporting/metrics_log.py", "looks_again"): "the name of a field in older metrics files",
    ("src/transformer/reporting/metrics_log.py", "gave_up"): "the name of a field in older metrics files",
    ("src/transformer/training/state.py", "looks_next"): "the name of an entry in older training states",
}
"""(file, match) -> the reason why it is correct there."""


@pytest.mark.parametrize("pattern", INSTEAD, ids=list(INSTEAD.values()))
def test_unclear_words_do_not_occur(pattern: str) -> None:
    found = []
    for path in FILES:
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(pattern.replace(" ", r"\s+"), text, re.IGNORECASE):
            if (name, match[0]) not in ALLOWED:
                found.append(f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}")
    assert found == [], f"use instead: {INSTEAD[pattern]}"


@pytest.mark.parametrize(("name", "word"), ALLOWED)
def test_every_exception_is_still_needed(name: str, word: str) -> None:
    assert word in (ROOT / name).read_text(encoding="utf-8"), ALLOWED[name, word]
