"""The commands: which name is which module. Each command has a --help of its own."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "demo": ("transformer.cli.demo", "the whole job offline on Shakespeare: train, plot, evaluate, generate"),
    "train": ("transformer.cli.train.command", "train a model"),
    "download": (
        "transformer.cli.download",
        "fetch text from the hub, to train later without a network",
    ),
    "generate": ("transformer.cli.generate.command", "write with a trained model"),
    "evaluate": ("transformer.cli.evaluate.command", "perplexity and bits per byte of a checkpoint"),
    "inspect": ("transformer.cli.inspect.command", "what a checkpoint holds, and whether it is whole"),
    "compare": ("transformer.cli.compare.command", "all checkpoints, ranked"),
    "plot": ("transformer.cli.plot", "the curves of one or more runs, as a picture and a table"),
    "demo-sampling": ("transformer.cli.sampling.command", "the sampling strategies side by side"),
    "test-fineweb": (
        "transformer.cli.fineweb.command",
        "check the FineWeb-Edu path: files, cache, timing, split, a sample",
    ),
    "export-page": ("transformer.cli.export_page", "the lesson page with a model of yours inside, as one HTML file"),
    "benchmark": ("transformer.cli.benchmark.command", "tokens per second with and without the key-value cache"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        print("usage: main.py COMMAND [OPTIONS]\n")
        print("\n".join(f"  {command:<15} {about}" for command, (_, about) in COMMANDS.items()))
        print("\nOptions of a command: main.py COMMAND --help")
        return 0
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages: PyTorch reads this when it first takes memory
    from transformer.cli.base import run
    from transformer.config import near_miss

    if name not in COMMANDS:
        print(f"error: there is no command {name!r}{near_miss(name, COMMANDS)} (see main.py --help)", file=sys.stderr)
        return 2
    return run(importlib.import_module(COMMANDS[name][0]).main, arguments[1:])
