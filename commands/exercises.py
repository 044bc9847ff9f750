"""Exercises: write parts of the model yourself, checked by this project's own properties.

    uv run python main.py exercises                       make the folder exercises/, and show what is done and next
    uv run python main.py exercises check attention       check one; without a name, all
    uv run python main.py exercises hint attention        a hint about the first thing that is wrong
    uv run python main.py train --preset demo --position rotary --with-exercises     train with the parts that pass

Each file has functions to write, with their shapes, and names the lesson to read before. A file that is there is never
overwritten. docs/exercises.md is the guide; the code is in src/transformer/exercises/ and cli/exercises/.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["exercises", *sys.argv[1:]]))
