"""Trains a small model on Shakespeare offline, draws its loss curve, evaluates it and generates text.

    uv run python main.py demo
    uv run python main.py demo --resume         continue a demo that was stopped

The settings are the preset "demo" in config.py; benchmarks/results/demo_experiments.md reports how they were chosen.
The code is in src/transformer/cli/demo/.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
