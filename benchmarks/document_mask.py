"""The cost of the document mask: training steps of the same model with and without it, alternating.

    uv run python benchmarks/document_mask.py                   both shapes, 15 rounds; about four minutes on two cores
    uv run python benchmarks/document_mask.py --rounds 2 --out trial.json

There are two shapes: the preset default (batch 8, rows of 128 tokens) and the preset modern (batch 2, rows of 512
tokens). A step is one micro-batch of 1,024 tokens, forward and backward, and an AdamW update. Each round takes one step
without the mask and one with it; the order alternates. The reported ratio is the median of the ratios within a round,
so a temporary slowdown of the machine affects both. Each token ends a document with probability 1/200.
"""

from __future__ import annotations

import os

os.environ.setdefault(
    "THP_MEM_ALLOC_ENABLE", "1"
)  # huge pages, as in main.py; PyTorch reads it at its first allocation

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from machine import machine, typed_command
from torch import Tensor

from transformer.kernels import accelerate
from transformer.model import DecoderOnlyTransformer
from transformer.presets import PRESETS
from transformer.training_utils import Objective

RESULTS = Path(__file__).parent / "results" / "document_mask.json"
SHAPES = {"default": (8, 128), "modern": (2, 512)}
"""Preset -> rows of a micro-batch, tokens of a row."""
END_OF_TEXT = 0
DOCUMENT_TOKENS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="result file (default: the one in benchmarks/results)"
    )
    options = parser.parse_args()
    results: dict[str, Any] = {"command": typed_command()}
    results |= {"machine": machine(), "presets": {}}
    for preset in options.presets:
        results["presets"][preset] = measure(preset, options.rounds)
        print(table(preset, results["presets"][preset]), flush=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def measure(preset: str, rounds: int) -> dict[str, Any]:
    """Returns step times, median tokens/s, and the speed with the mask relative to the speed without it."""
    torch.manual_seed(0)
    rows, length = SHAPES[preset]
    shape = PRESETS[preset].model
    model = accelerate(DecoderOnlyTransformer(shape))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    contenders = {"plain": Objective(model), "masked": Objective(model, END_OF_TEXT)}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):  # the first is a warm-up
        batch = packed(rows, length + 1, shape.vocab_size)
        names = list(contenders) if number % 2 else list(reversed(contenders))
        for name in names:
            seconds[name].append(step(contenders[name], optimizer, batch))
    seconds = {name: times[1:] for name, times in seconds.items()}
    speeds = {name: round(rows * length / statistics.median(times), 1) for name, times in seconds.items()}
    ratios = [plain / masked for plain, masked in zip(seconds["plain"], seconds["masked"], strict=True)]
    return {
        "rows": rows,
        "row_tokens": length,
        "tokens_per_s": speeds,
        "masked_over_plain": round(statistics.median(ratios), 3),
        "masked_over_plain_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "step_s": {name: [round(value, 4) for value in times] for name, times in seconds.items()},
    }


def packed(rows: int, length: int, vocab_size: int) -> Tensor:
    """Returns tokens (rows, length) int64 with documents of DOCUMENT_TOKENS tokens on average."""
    tokens = torch.randint(1, vocab_size, (rows, length))
    return tokens.masked_fill(torch.rand(rows, length) < 1 / DOCUMENT_TOKENS, END_OF_TEXT)


def step(objective: Objective, optimizer: torch.optim.Optimizer, batch: Tensor) -> float:
    """Takes one training step; returns its duration in seconds."""
    started = time.perf_counter()
    nats, count = objective(batch[:, :-1], batch[:, 1:])
    (nats / count).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - started


def table(preset: str, result: dict[str, Any]) -> str:
    """Returns the medians as a Markdown table."""
    lines = [f"| {preset}, {result['rows']} rows of {result['row_tokens']} | tokens/s | against plain |"]
    lines += ["| --- | --- | --- |"]
    for name, ratio in (("plain", 1.0), ("masked", result["masked_over_plain"])):
        lines.append(f"| {name} | {result['tokens_per_s'][name]:,.0f} | {ratio:.2f} x |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
