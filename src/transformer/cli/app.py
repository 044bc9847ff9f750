"""The commands: a table from name to module, and the exit status of each.

A command is a function `main(arguments)` that returns nothing. An error that the user can correct is a ValueError or an
OSError: it becomes one line on standard error and exit status 2. Each command has a --help of its own.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence

from transformer.cli.console import is_out_of_memory, one_line, rank_prefix
from transformer.cli.options import program
from transformer.config import near_miss

Command = Callable[[Sequence[str]], None]
COMMANDS = {
    "demo": ("transformer.cli.demo", "train, plot, evaluate and generate offline on Shakespeare, in minutes"),
    "train": ("transformer.cli.train.command", "train a model"),
    "download": ("transformer.cli.download", "fetch text from the hub, to train later without a network"),
    "generate": ("transformer.cli.generate.command", "write text with a trained model"),
    "evaluate": ("transformer.cli.evaluate.command", "perplexity and bits per byte of a checkpoint"),
    "inspect": ("transformer.cli.inspect.command", "show what a checkpoint contains, and check it"),
    "compare": ("transformer.cli.compare.command", "rank all checkpoints"),
    "plot": ("transformer.cli.plot", "draw the curves of one or more runs, as a picture and a table"),
    "demo-sampling": ("transformer.cli.sampling.command", "compare the sampling strategies side by side"),
    "test-fineweb": (
        "transformer.cli.fineweb.command",
        "check the FineWeb-Edu path: files, cache, timing, split, a sample",
    ),
    "export-page": ("transformer.cli.export_page", "put a model of yours into the lesson page, as one HTML file"),
    "benchmark": ("transformer.cli.benchmark", "tokens per second with and without the key-value cache"),
}
"""By name: the module whose main() is the command, and one line of help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names; returns the exit status.

    Without arguments it shows a menu at a terminal, and the help text elsewhere.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages; PyTorch reads this at its first allocation
    if not arguments and _is_at_terminal():
        from transformer.cli.menu import choose

        try:
            arguments = choose()
        except (KeyboardInterrupt, EOFError):
            return 130
        if not arguments:
            return 0
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        print(f"usage: {program()} COMMAND [OPTIONS]\n")
        print("\n".join(f"  {command:<15} {about}" for command, (_, about) in COMMANDS.items()))
        print(f"\nOptions of a command: {program()} COMMAND --help")
        return 0
    if name not in COMMANDS:
        meant = near_miss(name, COMMANDS)
        print(f"error: there is no command {name!r}{meant} (see {program()} --help)", file=sys.stderr)
        return 2
    return run(importlib.import_module(COMMANDS[name][0]).main, arguments[1:])


def _is_at_terminal() -> bool:
    """Whether a user can answer: standard input and standard output are both terminals."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def run(command: Command, arguments: Sequence[str]) -> int:
    """Runs a command; returns its exit status: 0, 2 for an error that the user can correct, 130 for Ctrl-C.

    Under torchrun it does not return but ends the process. Python's normal exit destroys the interpreter while threads
    of the process group may still run, and occasionally one of them aborts a run that has succeeded.
    """
    try:
        status = _status(command, arguments)
    except SystemExit as stop:
        if not rank_prefix() or not isinstance(stop.code, int):
            raise
        status = stop.code
    if rank_prefix():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _status(command: Command, arguments: Sequence[str]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without a character shows "?" in its place
    try:
        command(arguments)
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # `... | head` closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"error: {rank_prefix()}{one_line(str(error))}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if rank_prefix() and re.search("gloo|NCCL", str(error)):  # the process that failed has reported its error
            if os.environ["LOCAL_RANK"] == "0":
                reason = one_line(str(error))[:200]
                print(f"{rank_prefix()}stopped because another process failed: {reason}", file=sys.stderr)
            return 1
        if not is_out_of_memory(error):
            raise
        advice = "a smaller --batch-size, --d-model or encoding needs less"
        print(f"error: {rank_prefix()}out of memory: {advice}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0
