"""The commands: a table from name to package, and the exit status of each.

A command's package has two modules. `options` has read_options(arguments), which needs no PyTorch, whose import takes
seconds: --help and a misspelt flag are answered at once. `command` has main(options), which returns nothing. An error
that the user can correct is a ValueError or an OSError: it becomes one line on standard error and exit status 2.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from transformer.cli.console import (
    can_redraw,
    flushed,
    is_closed_pipe,
    is_out_of_memory,
    one_line,
    open_missing_streams,
    output_lost,
    rank_prefix,
    reported_once,
)
from transformer.cli.options import program
from transformer.cli.waiting import choose_waiting
from transformer.config import near_miss

COMMANDS = {
    "demo": ("transformer.cli.demo", "train, plot, evaluate and generate offline on Shakespeare, in minutes"),
    "train": ("transformer.cli.train", "train a model"),
    "download": ("transformer.cli.download", "fetch text from the hub, to train later without a network"),
    "generate": ("transformer.cli.generate", "write text with a trained model"),
    "evaluate": ("transformer.cli.evaluate", "perplexity and bits per byte of a checkpoint"),
    "import": ("transformer.cli.import_", "make a checkpoint of a model from the hub, a folder or a .gguf file"),
    "inspect": ("transformer.cli.inspect", "show what a checkpoint contains, and check it"),
    "interpret": ("transformer.cli.interpret", "see inside a model: the prediction block by block, what its heads do"),
    "compare": ("transformer.cli.compare", "rank all checkpoints"),
    "plot": ("transformer.cli.plot", "draw the curves of one or more runs, as a picture and a table"),
    "demo-sampling": ("transformer.cli.sampling", "compare the sampling strategies side by side"),
    "test-fineweb": ("transformer.cli.fineweb", "check the FineWeb-Edu path: files, cache, timing, split, a sample"),
    "export": ("transformer.cli.export", "write a model for other programs, and compare it there"),
    "export-page": ("transformer.cli.export_page", "put a model of yours into the lesson page, as one HTML file"),
    "exercises": ("transformer.cli.exercises", "write parts of the model yourself, and have them checked"),
    "benchmark": ("transformer.cli.benchmark", "tokens per second with and without the key-value cache"),
}
"""By name: the command's package, and one line of help."""

WITHOUT_PRODUCTS = {"download", "exercises", "import", "inspect", "plot", "test-fineweb"}
"""Commands that compute no products, so that no threads of PyTorch wait for each other (waiting.py)."""


LESS_MEMORY = {
    "train": "a smaller --batch-size, --d-model or encoding needs less",
    "generate": "smaller --num-samples or --max-new-tokens, or --int8, need less",
    "evaluate": "a smaller --batch-size or --context, or --int8, needs less",
    "interpret": "a shorter --prompt needs less",
    "compare": "a smaller --batch-size or --context needs less",
    "import": "--dtype bfloat16 needs half of float32",
    "export": "--no-compare needs less",
    "benchmark": "smaller --lengths, another --preset or --int8 need less",
}
"""What to do if the memory is exhausted, by command: the flags are its own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names; returns the exit status: 0, 2 for an error, 130 for Ctrl-C.

    Without arguments it shows a menu at a terminal, and the help text elsewhere. --help, and a run that a signal
    stopped, raise SystemExit instead.
    """
    open_missing_streams()
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages; PyTorch reads this at its first allocation
    try:
        status = _status(sys.argv[1:] if arguments is None else arguments)
    except SystemExit as stop:
        raise SystemExit(_ended(stop.code if isinstance(stop.code, int) else 0)) from None
    return _ended(status)


def _ended(status: int) -> int:
    """Writes the buffered output; returns the exit status.

    Under torchrun it does not return but ends the process. Python's normal exit destroys the interpreter while threads
    of the process group may still run, and occasionally one of them aborts a run that has succeeded.
    """
    status = flushed(status)
    if rank_prefix():
        sys.stderr.flush()
        os._exit(status)
    return status


def _run(arguments: Sequence[str]) -> int:
    """Runs a command, or shows the menu or the help text."""
    if not arguments and can_redraw(sys.stdout) and sys.stdin is not None and sys.stdin.isatty():
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
        raise ValueError(f"there is no command {name!r}{near_miss(name, COMMANDS)} (see {program()} --help)")
    package, _ = COMMANDS[name]
    try:
        Path.cwd()
    except FileNotFoundError:
        raise ValueError("the current folder has been deleted: change to one that exists") from None
    with reported_once():
        options = importlib.import_module(f"{package}.options").read_options(arguments[1:])
    if name not in WITHOUT_PRODUCTS and "torch" not in sys.modules:
        choose_waiting(os.environ)
    importlib.import_module(f"{package}.command").main(options)
    return 0


def _status(arguments: Sequence[str]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without a character shows "?" in its place
    try:
        return _run(arguments)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and is_closed_pipe(error):  # `... | head` closed the pipe
            return output_lost(error)
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
        advice = LESS_MEMORY.get(arguments[0], "a smaller model needs less")
        print(f"error: {rank_prefix()}out of memory: {advice}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
