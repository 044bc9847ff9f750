"""Measures generation with and without the key-value cache: tokens per second, time to the first token, memory.

    uv run python main.py benchmark                                     the latest checkpoint, or a fresh model
    uv run python main.py benchmark --preset default --max-seq-len 512  a fresh model with a longer context

Speed does not depend on the values of the weights, so a model with random weights is enough. For each length the
command continues a short prompt greedily, in turns with and without the cache, and reports medians. It also checks that
both texts are equal. The code is in src/transformer/cli/benchmark/.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", *sys.argv[1:]]))
