"""The whole job, offline: trains a small model on Shakespeare, draws its curve, measures it, lets it write.

The same as `python main.py demo`; the code is in src/transformer/cli/demo.py.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
