"""Evaluates a checkpoint on held-out text or on a text of your own: perplexity and bits per byte, with an explanation.

    uv run python main.py evaluate                              the latest checkpoint, on its own dataset
    uv run python main.py evaluate --checkpoint checkpoints/model_epoch_10_cl100k.pt --dataset fineweb
    uv run python main.py evaluate --text-file notes.md --stride 1
    uv run python main.py evaluate --json                       one JSON object on standard output

Each document is evaluated by itself, in overlapping windows: perplexity.py and evaluation/document_perplexity.py
explain the numbers. The code is in src/transformer/cli/evaluate/.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
