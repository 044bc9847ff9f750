"""Draws one or more runs in one picture: loss, learning rate, gradient norm, speed. For several it prints a table.

    uv run python main.py plot                                         the latest run in this folder
    uv run python main.py plot checkpoints_demo checkpoints_quick --against seconds
    uv run python main.py plot checkpoints_demo checkpoints_quick --out curves.svg
    uv run python main.py plot --inside checkpoints_demo               a run that was trained with --watch-inside

The code is in src/transformer/cli/plot/.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["plot", *sys.argv[1:]]))
