"""Evaluates checkpoints and ranks them by bits per byte, which is comparable between encodings of different sizes.

    uv run python main.py compare                                      all runs in folders checkpoints* here
    uv run python main.py compare checkpoints_demo checkpoints_lr/     runs, and folders of runs from a sweep
    uv run python main.py compare a/best b/model_epoch_3_byte.pt       single checkpoints
    uv run python main.py compare --text-file notes.md --json          all on a text of your own, as JSON

All checkpoints of one dataset are evaluated on the same held-out documents, each document by itself
(evaluation/document_perplexity.py). Differences are paired by document. A checkpoint is called BEST only if its lead
over every other one is statistically significant (evaluation/ranking.py). The code is in src/transformer/cli/compare/.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
