"""Texts among the arguments: prompts and stop strings, which may start with a dash and are UTF-8 in every locale."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

TEXTS = {"--prompt", "--stop", "--sample-prompt", "--versus", "--target", "--rather-than"}
"""Flags whose value is a text."""


def with_texts(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments, with each text attached to its flag: `--prompt -x` as `--prompt=-x`.

    A word after the flag that looks like another flag (--json) is left alone. Raises ValueError for a text that is not
    UTF-8.

    >>> with_texts(["--prompt", "- milk", "--stop=--", "--prompt", "--json"])
    ['--prompt=- milk', '--stop=--', '--prompt', '--json']
    """
    found: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag, equals, text = argument.partition("=")
        if flag.replace("_", "-") not in TEXTS:
            found.append(argument)
        elif equals:
            found.append(f"{flag}={as_utf8(text, flag)}")
        elif (word := next(rest, None)) is None:
            found.append(flag)
        elif re.fullmatch(r"--[A-Za-z][\w-]*(=.*)?", word, re.DOTALL):
            found += [flag, word]
        else:
            found.append(f"{flag}={as_utf8(word, flag)}")
    return found


def as_utf8(argument: str, flag: str) -> str:
    """Returns an argument as text: its bytes are UTF-8, even if Python read them in the encoding of another locale.

    Raises ValueError, naming the flag, if they are not.
    """
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte {error.start} is {error.object[error.start]:#04x}"
        raise ValueError(f"{flag} is not UTF-8 text ({byte}): type it in UTF-8") from error
    except UnicodeEncodeError:  # not from a command line
        return argument
