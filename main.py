"""`python main.py COMMAND`: the commands of src/transformer/cli. Each has a --help of its own."""

import sys

from transformer.cli.app import COMMANDS, main

__all__ = ["COMMANDS", "main"]

if __name__ == "__main__":
    sys.exit(main())
