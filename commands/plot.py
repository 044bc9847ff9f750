"""Draws one or more runs into one picture: loss, learning rate, gradient norm, speed. Several make a table as well.

The same as `python main.py plot`; the code is in src/transformer/cli/plot.py.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["plot", *sys.argv[1:]]))
