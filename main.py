"""`python main.py COMMAND`: which command is which function, and nothing else. Each has a --help of its own."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

COMMANDS = {
    "demo": ("demo", "the whole job offline on Shakespeare: train, plot, evaluate, generate"),
    "train": ("train", "train a model"),
    "download": ("download", "fetch text from the hub ahead of training, for training without a network"),
    "generate": ("generate", "write with a trained model"),
    "evaluate": ("evaluate_perplexity", "perplexity and bits per byte of a checkpoint"),
    "inspect": ("inspect_checkpoint", "what a checkpoint holds, and whether it is whole"),
    "compare": ("compare", "all checkpoints, ranked"),
    "plot": ("plot", "the curves of one or more runs, as a picture and a table"),
    "demo-sampling": ("sampling_comparison", "the sampling strategies side by side"),
    "test-fineweb": ("test_fineweb", "a look at FineWeb-Edu on the hub: what is there, how fast, a sample"),
    "export-page": ("export_page", "the lesson page with a model of yours inside, as one HTML file"),
    "benchmark": ("benchmark_generation", "tokens per second with and without the key-value cache"),
}


def main(arguments: list[str]) -> int:
    """Runs the command that the first argument names; returns the exit status."""
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        print("usage: main.py COMMAND [OPTIONS]\n")
        print("\n".join(f"  {command:<15} {about}" for command, (_, about) in COMMANDS.items()))
        print("\nOptions of a command: main.py COMMAND --help")
        return 0
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages: PyTorch reads this when it first takes memory
    sys.path.insert(0, str(Path(__file__).parent / "commands"))
    from cli import run
    from transformer.config import near_miss

    if name not in COMMANDS:
        print(f"error: there is no command {name!r}{near_miss(name, COMMANDS)} (see main.py --help)", file=sys.stderr)
        return 2
    return run(importlib.import_module(COMMANDS[name][0]).main, arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
