"""Output of the commands: the console, and the one line in which an error is reported."""

from __future__ import annotations

import os
import re
import sys

from rich.console import Console


def console(stderr: bool = False) -> Console:
    """Returns a console for standard output or standard error, without colours if that is not a terminal.

    Under torchrun only the console of rank 0 prints.
    """
    is_file = not (sys.stderr if stderr else sys.stdout).isatty()  # then lines are never wrapped
    is_quiet = rank_prefix() not in ("", "rank 0: ")
    return Console(
        highlight=False,
        markup=False,  # a file name may contain brackets: notes[old].txt
        emoji=False,
        width=140 if is_file else None,
        soft_wrap=is_file,
        quiet=is_quiet,
        stderr=stderr,
    )


def printable(text: str) -> str:
    r"""Returns a text from outside with its control characters written as escapes.

    A checkpoint or an answer of the hub may contain terminal commands, which would move the cursor or hide output.

    >>> print(printable("best\x1b[2J of\n3"))
    best\x1b[2J of\n3
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def rank_prefix() -> str:
    """Returns "rank 3: " if torchrun started several processes, and "" for a single process."""
    return "" if os.environ.get("WORLD_SIZE", "1") == "1" else f"rank {os.environ.get('RANK', '?')}: "


def one_line(text: str) -> str:
    """Returns the text with every run of white space replaced by one space, and other control characters escaped."""
    return printable(" ".join(text.split())) or "an error without a message"


def is_out_of_memory(error: Exception) -> bool:
    """Whether PyTorch reports that the memory of a device, or of the machine, is exhausted."""
    return isinstance(error, RuntimeError) and bool(re.search("out of memory|can't allocate memory", str(error)))
