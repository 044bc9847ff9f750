"""The cost of rounded weights in quality: a checkpoint's held-out documents, evaluated in float32, float16 and int8.

    python benchmarks/int8.py CHECKPOINT [CHECKPOINT ...]       results/int8.json

The scores are those of `main.py evaluate --weights`. The difference to float32 is in bits per byte, paired by document,
with its standard error. Checkpoints that are not measured again stay in the file. With int8, evaluation dequantises the
weights; the kernel for single tokens also rounds activations to bfloat16. "kernel" is the loss with the kernel minus
the loss with dequantised weights, in nats per token, on the first tokens of the same text.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from machine import machine, typed_command

from transformer.cli.evaluate.measure import Texts, score
from transformer.cli.evaluate.options import MeasureOptions
from transformer.cli.models import open_model
from transformer.config import IGNORE, Weights
from transformer.dataset import validation_rows
from transformer.kernels import int8 as quantisation
from transformer.text import Tokens
from transformer.training.checkpoint import LoadedModel

TOKENS = 20_000
ROUNDED: tuple[Weights, ...] = ("float16", "int8")
RESULT = Path(__file__).parent / "results" / "int8.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    content = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {"results": {}}
    for path in options.checkpoints:
        content["results"][path.name] = {"command": typed_command(), "machine": machine(), **cost(path)}
    options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(options.out)


def cost(path: Path) -> dict[str, Any]:
    """Evaluates one checkpoint in each format."""
    settings = MeasureOptions()
    plain_model = open_model(path, "cpu")
    documents = Texts(settings).of(plain_model.config.data, plain_model.tokenizer)
    plain = score(plain_model, documents, settings)
    loaded = {weights: open_model(path, "cpu", weights) for weights in ROUNDED}
    rounded = {weights: score(model, documents, settings) for weights, model in loaded.items()}
    scores = {"float32": plain, **rounded}
    shape = plain_model.config.model
    found = {
        "shape": f"{shape.num_layers} layers, width {shape.d_model}, vocabulary {shape.vocab_size:,}",
        "text": documents.name,
        "tokens": plain.evaluation.tokens,
        "documents": len(plain),
        "perplexity": {weights: one.evaluation.perplexity for weights, one in scores.items()},
        "bits_per_byte": {weights: one.evaluation.bits_per_byte for weights, one in scores.items()},
        "difference": {weights: one.minus(plain)._asdict() for weights, one in rounded.items()},
        "kernel": kernel_cost(loaded["int8"], np.concatenate([np.asarray(tokens) for tokens in documents.tokens])),
    }
    print(f"{path.name}: {found}")
    return found


def kernel_cost(loaded: LoadedModel, tokens: Tokens) -> dict[str, float]:
    """Compares the kernel with dequantised weights, for a quantised model."""
    inputs, targets = validation_rows(tokens[:TOKENS], loaded.config.data.seq_length, loaded.tokenizer.eot_id)
    losses = []
    for quantisation.MOST_ROWS in (0, sys.maxsize):  # without the kernel, with the kernel
        with torch.no_grad():
            sums = [
                F.cross_entropy(loaded.model(row[None])[0], target, ignore_index=IGNORE, reduction="sum")
                for row, target in zip(inputs, targets, strict=True)
            ]
        losses.append(float(sum(sums)) / min(TOKENS, len(tokens)))
    return {"loss_difference": losses[1] - losses[0], "tokens": min(TOKENS, len(tokens))}


if __name__ == "__main__":
    main()
