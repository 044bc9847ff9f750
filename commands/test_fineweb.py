"""Checks the FineWeb-Edu path: the files on the hub, download speed, the cache, the split, and a decoded sample.

    uv run python commands/test_fineweb.py                      downloads a few row groups: some megabytes
    uv run python commands/test_fineweb.py --encoding p50k_base
    uv run python commands/test_fineweb.py --dataset hf:Salesforce/wikitext --subset wikitext-103-raw-v1

The command reads the text that a training run with the same settings reads first, through the same cache, so a second
call shows what the cache holds. Despite its name this is not a pytest test: it needs a network, or a cache that an
earlier call has filled. The code is in src/transformer/cli/fineweb/.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["test-fineweb", *sys.argv[1:]]))
