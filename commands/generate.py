"""Writes with a trained model: after a prompt, after what comes through a pipe, or in a conversation.

The same as `python main.py generate`; the code is in src/transformer/cli/generate/command.py.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["generate", *sys.argv[1:]]))
