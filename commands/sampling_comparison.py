"""Compares the sampling strategies: which tokens remain, their probabilities, twelve samples of each; with a picture.

    uv run python main.py demo-sampling                 on a small fixed distribution
    uv run python main.py demo-sampling --with-model --prompt "Once upon a time"

With --with-model the distribution is the model's prediction after the prompt, and every preset of the generate command
writes a short continuation. All samples use the same seed, so only the settings differ. The picture shows the
distribution before and after each filter, and after all of them, with one row for each temperature. The code is in
src/transformer/cli/sampling/.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["demo-sampling", *sys.argv[1:]]))
