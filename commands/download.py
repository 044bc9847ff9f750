"""Downloads text from the hub before training, so that training needs no network.

    uv run python main.py download --tokens 100M                      FineWeb-Edu, for the default run
    uv run python main.py train                                       runs without a network

The command downloads the text that a run with the same --seed reads first, and stores its token ids for the run's
--encoding. If it is interrupted, the same line continues where it stopped. The cache holds --cache-shards shards in
--cache-gb: for more text, give larger values of both here and to the run. The code is in
src/transformer/cli/download/.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["download", *sys.argv[1:]]))
