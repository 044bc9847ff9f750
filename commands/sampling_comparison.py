"""The ways to sample side by side: which tokens stay, how likely each is, what twelve draws give; and a picture.

The same as `python main.py demo-sampling`; the code is in src/transformer/cli/sampling/command.py.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["demo-sampling", *sys.argv[1:]]))
