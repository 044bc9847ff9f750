"""Cases drawn from seeds: each runs in this process, and a failure names its seed, which draws the same case again.

A case fails if it raises, takes longer than SECONDS, needs more than twice the memory of the plain cases, or sends a
terminal a control character that is not one of the console's own. FUZZ_SEED=NUMBER runs that case of a test alone,
FUZZ_CASES=NUMBER so many of each test.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

SECONDS = 60
OWN_CONTROLS = re.compile(r"\x1b\[[\d;]*m|\x1b\[\?25[lh]|\x1b\[\d*[AK]|\r")
"""What rich writes for colours and progress bars."""
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
HOSTILE = "\x1b]0;HOSTILE\x07\x9b2J\u202e"
"""A window title, an erased screen and a reversed line, for a terminal that obeys."""


class Terminal(io.TextIOWrapper):
    """A stream that a command takes for a terminal."""

    def __init__(self, errors: str) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", errors=errors)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode(errors="replace")


class Outcome(NamedTuple):
    """What a command left: exit status, and all that the terminal got."""

    status: int
    shown: str


class TookTooLong(BaseException):
    """Not an Exception, so that no handler mistakes it for an error of the input."""


def call(*arguments: str, typed: bytes = b"") -> Outcome:
    """Runs main.py with these arguments at a terminal; the case fails if it is not an ordinary outcome."""
    from transformer.cli.app import main

    out, err = Terminal("strict"), Terminal("backslashreplace")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(typed), encoding="utf-8")
        try:
            status = main(list(arguments))
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        finally:
            sys.stdin = before
    outcome = Outcome(status, out.text() + err.text())
    line = " ".join(arguments)[:300]
    assert status in (0, 2), f"status {status} of {line}: {outcome.shown[-500:]}"
    assert status == 0 or "error: " in outcome.shown, f"no message of {line}: {outcome.shown[-500:]!r}"
    assert "Traceback" not in outcome.shown, f"{line}: {outcome.shown[-500:]}"
    check_shown(outcome.shown)
    return outcome


def check_shown(text: str) -> None:
    """Raises AssertionError for a control character that is not one of the console's own."""
    found = CONTROLS.search(OWN_CONTROLS.sub("", text))
    assert found is None, f"a terminal gets {found[0]!r}: {text[max(0, found.start() - 80) :][:200]!r}"


def megabytes() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Ends what takes longer than SECONDS."""

    def end(*_: object) -> None:
        raise TookTooLong(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_cases(folder: Path, count: int, case: Callable[[Random], object], plain: Callable[[], object]) -> None:
    """Runs the cases of the seeds 0 to count - 1 in `folder`; `plain` does once what they do, with nothing odd."""
    only, count = os.environ.get("FUZZ_SEED"), int(os.environ.get("FUZZ_CASES", count))
    failures: list[str] = []
    with contextlib.chdir(folder):
        plain()
        allowed = 2 * megabytes()
        for seed in range(count) if only is None else [int(only)]:
            try:
                with limited():
                    case(Random(seed))
                assert megabytes() <= allowed, f"{megabytes():,.0f} MB, and twice the plain case is {allowed:,.0f}"
            except (Exception, TookTooLong):
                failures.append(f"FUZZ_SEED={seed}: {traceback.format_exc(limit=-4)}")
                allowed = max(allowed, 2 * megabytes())
    shown = "\n\n".join(failures[:10])
    assert not failures, f"{len(failures)} of {count} cases failed; the first ones:\n\n{shown}"


def damaged(data: bytes, chance: Random) -> bytes:
    """The bytes with flipped bits, a part missing, zeroed or repeated, or bytes too many."""
    if not data:
        return data
    changed, at = bytearray(data), chance.randrange(len(data))
    length = min(len(data) - at, chance.choice([1, 8, 512, 4096]))
    match chance.randrange(6):
        case 0:
            for _ in range(chance.choice([1, 1, 1, 8])):
                changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        case 1:
            del changed[at:]
        case 2:
            changed[at : at + length] = bytes(length)
        case 3:
            changed[at:at] = changed[at : at + length]
        case 4:
            changed[at : at + length] = chance.randbytes(length)
        case 5:
            del changed[at : at + length]
    return bytes(changed)


def altered(tree: Any, chance: Random, odd: Callable[[Random], Any]) -> Any:
    """Nested dicts and lists with something odd in place of one value, a value missing, or one too many."""
    if isinstance(tree, dict) and tree and chance.random() < 0.9:
        name = chance.choice(list(tree))
        match chance.randrange(12):
            case 0:
                return {key: value for key, value in tree.items() if key != name}
            case 1:
                return {**tree, chance.choice([HOSTILE, "x", 7]): odd(chance)}
            case _:
                return {**tree, name: altered(tree[name], chance, odd)}
    if isinstance(tree, list | tuple) and tree and chance.random() < 0.8:
        at = chance.randrange(len(tree))
        changed = [*tree[:at], altered(tree[at], chance, odd), *tree[at + 1 :]]
        return type(tree)(changed if chance.random() < 0.8 else changed[:at])
    return odd(chance)


def odd_value(chance: Random) -> Any:
    """A value of JSON or of a pickle that nothing here has written."""
    return chance.choice(
        [
            None, True, False, -1, 0, 1, 3, 2**31, 2**63, 10**30, -(10**30), 0.5, 1e308, -0.0, float("nan"),
            float("inf"), "", "abc", HOSTILE, "a\0b", "\ud800", "../" * 40, "x" * 5_000, "é" * 300, [], [1], ["a"],
            [[]], {}, {"a": 1}, {HOSTILE: HOSTILE}, [None] * 1_000, "byte", "learned", "main", "1", "true",
        ]
    )  # fmt: skip
