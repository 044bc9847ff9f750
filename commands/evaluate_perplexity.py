"""Measures a checkpoint on held-out text, or on a text of yours: perplexity and bits per byte, and what they mean.

The same as `python main.py evaluate`; the code is in src/transformer/cli/evaluate/command.py.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
