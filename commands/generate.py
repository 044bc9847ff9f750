"""Generates text with a trained model: from a prompt, from standard input, or interactively.

    uv run python main.py generate                                     the latest checkpoint, interactively
    uv run python main.py generate --prompt "The cat sat"              one text, printed as it is generated
    uv run python main.py generate --prompt "The cat" --prompt "The dog" --num-samples 3 --seed 7
    uv run python main.py generate --checkpoint checkpoints/model_epoch_10_cl100k.pt --preset creative
    uv run python main.py generate --strategy top_k_top_p --top-k 50 --top-p 0.9 --temperature 0.8
    uv run python main.py generate --prompt-file story.txt --max-new-tokens 500 --stop "THE END"
    uv run python main.py generate --chat                              a conversation with a model that answers
    echo "The cat sat" | uv run python main.py generate --json

A preset is a named set of sampling settings; other flags change single settings of it. The encoding is the one that the
model was trained with; there is no flag for it.

The prompt and the text go to standard output, with a heading if there are several texts, or as one JSON object with
--json. Everything else goes to standard error. When output goes to a terminal, control characters are shown as U+FFFD.
The last line break of a prompt from a file or from standard input is removed.

If the text is longer than the model's context, the model sees at least the last half of the context (generation.py).
Of a prompt that is longer than the context it sees the end. The code is in src/transformer/cli/generate/.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["generate", *sys.argv[1:]]))
