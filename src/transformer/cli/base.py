"""What all commands share: flags from dataclasses, one-line errors, a console.

A command is a function from the list of its arguments to nothing; `run` calls it and turns an error that a user can
mend into one line on standard error and exit status 2.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import tyro
from rich.console import Console

from transformer.kernels.int8 import quantise
from transformer.training import checkpoint
from transformer.training.checkpoint import LoadedModel
from transformer.training.device import pick_device

Options = TypeVar("Options")
Command = Callable[[Sequence[str]], None]


def run(command: Command, arguments: Sequence[str]) -> int:
    """Runs a command; returns its exit status: 0, 2 for an error that the user can mend, 130 for Ctrl-C.

    One of several processes ends here. Python's own way out takes the interpreter down while threads of the process
    group may still be at work, and now and then one of them aborts a run that has gone well.
    """
    try:
        status = _status(command, arguments)
    except SystemExit as stop:
        if not whose() or not isinstance(stop.code, int):
            raise
        status = stop.code
    if whose():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _status(command: Command, arguments: Sequence[str]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character still shows the rest
    try:
        command(arguments)
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # `... | head` has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"error: {whose()}{one_line(str(error))}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if whose() and re.search("gloo|NCCL", str(error)):  # what the one that ended had to say, it has said
            if os.environ["LOCAL_RANK"] == "0":
                why = one_line(str(error))[:200]
                print(f"{whose()}another process has ended, and so does the run: {why}", file=sys.stderr)
            return 1
        if not is_out_of_memory(error):
            raise
        less = "a smaller --batch-size, --d-model or encoding needs less"
        print(f"error: {whose()}out of memory: {less}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0


def parse(
    cls: type[Options],
    arguments: Sequence[str],
    name: str,
    default: Options | None = None,
    check: Callable[[Options], object] | None = None,
) -> Options:
    """Returns the dataclass `cls` filled from flags; help and defaults come from it, or from the instance `default`.

    Raises ValueError in one line for a flag or value that is not understood. `--help` prints and exits.
    """
    message = io.StringIO()
    start = cls() if default is None else default
    try:
        with contextlib.redirect_stderr(message):
            options = tyro.cli(
                cls, args=list(arguments), default=start, prog=f"main.py {name}", config=(tyro.conf.OmitArgPrefixes,)
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_flag_error(message.getvalue(), name)) from None
    if check is not None:
        check(options)
    return options


def _flag_error(box: str, name: str) -> str:
    """Returns what tyro's framed message says first, without the frame, drawn in boxes or in dashes and bars."""
    lines = [line.strip("│| \n") for line in box.splitlines()]
    lines = lines[1:] if lines and "─" in lines[0] else lines[2:]  # the title, in the frame or above a line of dashes
    sentences = " ".join(itertools.takewhile(lambda line: not re.search("[─-]{3}.?$", line), lines))
    flag = re.search(r"Perhaps you meant:.*?(--[\w-]+)", " ".join(lines))
    meant = f"; did you mean {flag[1]}?" if flag else ""
    return f"{sentences.rstrip('.')}{meant} (see main.py {name} --help)"


def flag_value(arguments: Sequence[str], flag: str, default: str) -> str:
    """Returns what follows `flag` in the arguments, before they are parsed: a preset decides the other defaults."""
    for number, argument in enumerate(arguments):
        if argument == flag and number + 1 < len(arguments):
            return arguments[number + 1]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return default


def whose() -> str:
    """Returns "rank 3: " where torchrun started several processes, and nothing where there is one."""
    return "" if os.environ.get("WORLD_SIZE", "1") == "1" else f"rank {os.environ.get('RANK', '?')}: "


def is_out_of_memory(error: Exception) -> bool:
    """Whether PyTorch says that the memory of a device, or of the machine, is not enough."""
    return isinstance(error, RuntimeError) and bool(re.search("out of memory|can't allocate memory", str(error)))


def one_line(text: str) -> str:
    """Returns the text with line breaks and runs of spaces as single spaces."""
    return " ".join(text.split()) or "something went wrong without saying what"


def console(stderr: bool = False) -> Console:
    """Returns a console for standard output or error; without colours and control codes where it is not a terminal.

    Of several processes only rank 0 has something to say: the consoles of the others show nothing.
    """
    plain = not (sys.stderr if stderr else sys.stdout).isatty()  # then no line is broken in two
    width = 140 if plain else None
    # Without markup: a file may be called notes[old].txt.
    quiet = whose() not in ("", "rank 0: ")
    return Console(highlight=False, markup=False, emoji=False, width=width, soft_wrap=plain, quiet=quiet, stderr=stderr)


def open_model(path: Path | None, device: str = "auto", int8: bool = False) -> LoadedModel:
    """Loads a checkpoint, "best" or where none is named the latest one. Raises CheckpointError, a ValueError.

    With int8 its matrices are rounded to bytes.
    """
    found = checkpoint.named(path) if path else checkpoint.latest(Path())
    loaded = checkpoint.load_model(found, pick_device(device))
    if int8:
        quantise(loaded.model)
    return loaded
