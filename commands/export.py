"""Writes a trained model for other programs, and compares it there.

    uv run python main.py export checkpoints/best --to hf my-model            a folder for transformers, vLLM, MLX, ...
    uv run python main.py export --to gguf my-model.gguf --kind q8_0          a file for llama.cpp and what builds on it
    uv run python main.py export --to onnx my-model.onnx                      a file for onnxruntime, with a cache
    uv run python main.py export --to hf my-model --no-compare                the latest checkpoint, without comparing

ONNX can express every shape of model. For the others, ALiBi with ReLU for example is refused, with the nearest settings
that can be exported. An existing file or folder is never replaced. The code is in src/transformer/cli/export/ and
src/transformer/interop/.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
