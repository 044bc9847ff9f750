"""Puts a checkpoint of yours into the lesson page: one HTML file that runs it in any browser, without a network.

The same as `python main.py export-page`; the code is in src/transformer/cli/export_page.py.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["export-page", *sys.argv[1:]]))
