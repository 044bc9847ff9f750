"""Measures checkpoints and ranks them by bits per byte, which encodings of different sizes share.

The same as `python main.py compare`; the code is in src/transformer/cli/compare/command.py.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
