"""Command-line options: a dataclass filled from flags, and errors in one line."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import tyro

from transformer.cli.typed_texts import with_texts
from transformer.config import ConfigError
from transformer.config_base import size_problems

Options = TypeVar("Options")


def program() -> str:
    """Returns the name under which the commands were started: "transformer" or "main.py"."""
    return "transformer" if Path(sys.argv[0]).stem == "transformer" else "main.py"


def command_line() -> str:
    """Returns the words that come before a command's name in an example for the user to copy."""
    return "transformer" if program() == "transformer" else "uv run python main.py"


def parse(
    cls: type[Options],
    arguments: Sequence[str],
    name: str,
    default: Options | None = None,
    check: Callable[[Options], object] | None = None,
) -> Options:
    """Returns the dataclass `cls` filled from flags. Defaults come from the class, or from the instance `default`.

    `name` is the command's. Raises ValueError with a one-line message for an unknown flag, a wrong value or a
    number above its bound. `--help` prints the help text and exits.
    """
    message = io.StringIO()
    start = cls() if default is None else default
    try:
        with contextlib.redirect_stderr(message):
            options = tyro.cli(
                cls,
                args=with_texts(arguments),
                default=start,
                prog=f"{program()} {name}",
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_flag_error(message.getvalue(), name)) from None
    if found := size_problems(options):
        raise ConfigError(found)
    if check is not None:
        check(options)
    return options


def _flag_error(framed: str, name: str) -> str:
    """Returns the first sentences of a message that tyro printed in a frame.

    tyro has no public way to get the message itself: its hook for errors is private and may change in any release. The
    frame is drawn with box characters, or with dashes and bars if the output's encoding is not called "utf-8".
    """
    lines = [line.strip("│| \n") for line in framed.splitlines()]
    lines = lines[1:] if lines and "─" in lines[0] else lines[2:]  # the title: in the frame, or above a line of dashes
    sentences = " ".join(itertools.takewhile(lambda line: not re.search("[─-]{3}.?$", line), lines))
    flag = re.search(r"Perhaps you meant:.*?(--[\w-]+)", " ".join(lines))
    meant = f"; did you mean {flag[1]}?" if flag else ""
    return f"{sentences.rstrip('.')}{meant} (see {program()} {name} --help)"


def flag_value(arguments: Sequence[str], flag: str, default: str) -> str:
    """Returns the value of `flag` before the arguments are parsed: a preset sets the defaults of the other flags."""
    for number, argument in enumerate(arguments):
        if argument == flag and number + 1 < len(arguments):
            return arguments[number + 1]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return default
