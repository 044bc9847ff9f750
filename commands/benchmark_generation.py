"""Measures generation with and without the key-value cache: tokens per second, first token, memory, equal output.

The same as `python main.py benchmark`; the code is in src/transformer/cli/benchmark/command.py.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", *sys.argv[1:]]))
