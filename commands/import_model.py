"""Makes a checkpoint of a model of another program; every command takes it.

    uv run python main.py import hf:HuggingFaceTB/SmolLM2-135M               from the hub, as checkpoints_SmolLM2-135M
    uv run python main.py import hf:openai-community/gpt2 --revision main --out gpt2
    uv run python main.py import hf:OWNER/NAME/FILE.gguf                     one .gguf file of a repository
    uv run python main.py import folder                                      config.json, safetensors, tokenizer.json
    uv run python main.py import model.gguf --dtype bfloat16

The checkpoint records the source: its commit, licence, and the sha256 of each file (`main.py inspect`). Other commands
also take a source in place of a checkpoint, and import it at its first use. The guide is docs/models.md, the code is in
src/transformer/cli/import_/ and src/transformer/interop/.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["import", *sys.argv[1:]]))
