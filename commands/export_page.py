"""Puts a checkpoint into the lesson page: one HTML file that runs the model in any browser, without a network.

    uv run python main.py export-page                                         the latest checkpoint, as page.html
    uv run python main.py export-page --checkpoint checkpoints_demo/best --out mine.html
    uv run python main.py export-page --out page/model.js --measure           only the model, for index.html itself

The weights are rounded to 8 bits (src/transformer/kernels/int8.py); --measure reports the effect on the validation
loss. The code is in src/transformer/cli/export_page/.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["export-page", *sys.argv[1:]]))
