"""Shows what happens inside a model for a prompt, at the terminal and as an HTML page, and the habits of its heads.

    uv run python main.py interpret --prompt "ROMEO: But soft, what"          the latest checkpoint; interpret.html
    uv run python main.py interpret checkpoints_demo --prompt "ROMEO:" --head 1.2
    uv run python main.py interpret --prompt "The king is" --target " dead" --rather-than " here"
    uv run python main.py interpret --prompt "Ann saw Bob. Bob saw" --versus "Ann saw Bob. Ann saw"        patching
    uv run python main.py interpret hf:openai-community/gpt2 --text-file notes.txt --out habits.html
    uv run python main.py interpret --prompt "ROMEO:" --json
    uv run python main.py interpret --film checkpoints_induction              a run's attention through its training

The guide is docs/interpret.md, the code is in src/transformer/cli/interpret/ and src/transformer/interpret/.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["interpret", *sys.argv[1:]]))
