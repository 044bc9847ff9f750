"""Fetches text from the hub ahead of training, so that training needs no network.

The same as `python main.py download`; the code is in src/transformer/cli/download.py.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["download", *sys.argv[1:]]))
