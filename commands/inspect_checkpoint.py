"""Shows what a checkpoint contains, and checks that it is valid.

    uv run python main.py inspect                                      the latest checkpoint
    uv run python main.py inspect checkpoints_demo/best
    uv run python main.py inspect checkpoints/training_state_cl100k.pt --json

The command verifies every checksum, and compares the shapes of the weights with the settings. If the file is damaged,
is not a checkpoint, or its parts do not fit together, the command reports this in one line and exits with status 2.
The code is in src/transformer/cli/inspect/.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["inspect", *sys.argv[1:]]))
