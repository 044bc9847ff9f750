"""A smoke run of the FineWeb-Edu path: what is on the hub, how fast it comes, the cache, the split, and a sample.

The same as `python main.py test-fineweb`; the code is in src/transformer/cli/fineweb/command.py.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["test-fineweb", *sys.argv[1:]]))
