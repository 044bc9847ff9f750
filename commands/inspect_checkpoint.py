"""Shows what a checkpoint holds, and whether it is whole.

The same as `python main.py inspect`; the code is in src/transformer/cli/inspect/command.py.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["inspect", *sys.argv[1:]]))
