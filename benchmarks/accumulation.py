"""Gradient accumulation: how noisy a gradient is, how averaging micro-batches reduces the noise, and what it gains.

    python benchmarks/accumulation.py                                      about seven minutes on two cores
    python benchmarks/accumulation.py --noise-at 2 --micro-batches 16 --averaged 32 --budget 16 --out trial.json

**Noise.** The script trains the demo preset. After 20, 100 and 300 of its 600 steps it compares the gradients g_i of M
independently drawn micro-batches (8 rows of 128 tokens). With their mean m, unbiased estimates are

    tr S    = sum |g_i - m|^2 / (M - 1)            variance of the gradient of one micro-batch, summed over all weights
    |G|^2   = |m|^2 - tr S / M                     squared norm of the true gradient: without the noise of the mean
    B       = tr S / |G|^2                         number of micro-batches at which noise and gradient are equally large

B is the "simple noise scale" of arXiv 1812.06162, in micro-batches; B * 1,024 is in tokens. Its standard error is a
jackknife estimate over 8 blocks. The averages of 1 to 32 further micro-batches have a measured cosine with m. The
cosine predicted from the noise scale is |G|^2 / sqrt((|G|^2 + tr S / k) (|G|^2 + tr S / M)).

**Gain.** New models train on the same 320 micro-batches in the same order, with an optimizer step after 1, 4 or 16
micro-batches, each with three multiples of the preset's learning rates and with its warm-up and cosine schedule. The
best of the three is reported. Bits per byte are measured on the held-out scenes. There is one seed, so differences
below 0.01 are not meaningful.
"""

from __future__ import annotations

import os

os.environ.setdefault(
    "THP_MEM_ALLOC_ENABLE", "1"
)  # huge pages, as in main.py; PyTorch reads it at its first allocation

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo_recipe import Corpus, bits_per_byte, new_model, packed, steps, stream
from demo_recipe import read_corpus as read
from machine import machine, typed_command
from torch import Tensor

from transformer.config import TrainConfig
from transformer.presets import PRESETS
from transformer.training_utils import Objective

RESULT = Path(__file__).parent / "results" / "accumulation.json"
DEMO = PRESETS["demo"]
MICRO = replace(DEMO, batch_size=8)
RATES = {1: (0.5, 1.0, 2.0), 4: (0.5, 1.0, 2.0), 16: (1.0, 2.0, 4.0)}
"""Micro-batches per step -> the multiples of the preset's learning rates to try."""
AVERAGED = (1, 2, 4, 8, 16, 32)
BLOCKS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--noise-at", type=int, nargs="+", default=[20, 100, 300], help="demo steps after which the noise is measured"
    )
    parser.add_argument("--micro-batches", type=int, default=256, help="M in the formulas above; a multiple of 8")
    parser.add_argument("--averaged", type=int, default=128, help="further micro-batches to average; a multiple of 32")
    parser.add_argument("--budget", type=int, default=320, help="micro-batches of each training run; a multiple of 16")
    parser.add_argument("--threads", type=int, default=2, help="PyTorch threads (default 2)")
    parser.add_argument("--out", type=Path, default=RESULT, help="result file (default: the one in benchmarks/results)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    corpus = read(DEMO.data.encoding)
    results: dict[str, Any] = {"command": typed_command()}
    results |= {"machine": machine(), "noise": [], "equal_tokens": []}
    model = new_model(DEMO, corpus)
    for step in steps(model, DEMO, corpus, packed(DEMO, corpus)):
        if step in options.noise_at:
            results["noise"].append({"step": step, **noise(Objective(model), corpus, options)})
            print(json.dumps(results["noise"][-1]), flush=True)
            save(results, options.out)
        if step >= max(options.noise_at):
            break
    for accumulation, multiples in RATES.items():
        for multiple in multiples:
            results["equal_tokens"].append(trained(accumulation, multiple, options.budget, corpus))
            print(json.dumps(results["equal_tokens"][-1]), flush=True)
            save(results, options.out)
    options.out.with_suffix(".md").write_text(report(results), encoding="utf-8")
    print(report(results))


def save(results: dict[str, Any], out: Path) -> None:
    out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def noise(objective: Objective, corpus: Corpus, options: argparse.Namespace) -> dict[str, Any]:
    """Measures the gradients of many micro-batches, and of averages of micro-batches, at the current weights."""
    length, generator = DEMO.data.seq_length, torch.Generator().manual_seed(1)
    text = torch.from_numpy(stream(corpus.train).astype(np.int64))
    rows = text[: (len(text) - 1) // length * length + 1].unfold(0, length + 1, length)  # (rows, T + 1)

    def drawn() -> Tensor:
        """Returns the gradient of a micro-batch. Rows are drawn with replacement: independent."""
        return gradient(objective, rows[torch.randint(len(rows), (MICRO.batch_size,), generator=generator)])

    size = options.micro_batches // BLOCKS
    sums, squares = [], []
    for _ in range(BLOCKS):
        block = [drawn() for _ in range(size)]
        sums.append(torch.stack(block).sum(0, dtype=torch.float64))  # (parameters,)
        squares.append(sum(float(g.double().square().sum()) for g in block))
    total, square, count = torch.stack(sums).sum(0), sum(squares), size * BLOCKS
    variance, signal = estimate(total, square, count)
    others = [estimate(total - s, square - q, count - size) for s, q in zip(sums, squares, strict=True)]
    scales = np.array([v / s if s > 0 else np.inf for v, s in others])
    error = float(np.sqrt((BLOCKS - 1) / BLOCKS * np.square(scales - scales.mean()).sum()))
    cosines = averaged_cosines(drawn, total / count, options.averaged)
    predicted = {k: signal / ((signal + variance / k) * (signal + variance / count)) ** 0.5 for k in cosines}
    return {
        "variance": variance,
        "gradient_squared": signal,
        "noise_scale": variance / signal if signal > 0 else None,  # None: the noise of m exceeds the gradient
        "noise_scale_error": error if np.isfinite(error) else None,
        "cosine": {k: round(value, 4) for k, value in cosines.items()},
        "foretold_cosine": {k: round(value, 4) if signal > 0 else None for k, value in predicted.items()},
    }


def gradient(objective: Objective, rows: Tensor) -> Tensor:
    """Returns the gradient of the mean loss of rows (n, T + 1), flattened to one vector (parameters,)."""
    objective.zero_grad(set_to_none=True)
    nats, count = objective(rows[:, :-1], rows[:, 1:])
    (nats / count).backward()
    flat = torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None])
    objective.zero_grad(set_to_none=True)
    return flat


def estimate(total: Tensor, squares: float, count: int) -> tuple[float, float]:
    """Returns tr S and |G|^2 from the sum of the gradients, the sum of their squared norms, and their count."""
    mean_squared = float((total / count).square().sum())
    variance = (squares - count * mean_squared) / (count - 1)
    return variance, mean_squared - variance / count


def averaged_cosines(drawn: Any, large: Tensor, count: int) -> dict[int, float]:
    """Returns the mean cosine between the gradient of the large batch and averages of 1, 2, ... new micro-batches."""
    sums = {k: torch.zeros_like(large) for k in AVERAGED}
    found: dict[int, list[float]] = {k: [] for k in AVERAGED}
    for number in range(1, count + 1):
        new = drawn().double()
        for k, running in sums.items():
            running += new
            if number % k == 0:
                found[k].append(float(torch.cosine_similarity(running, large, dim=0)))
                running.zero_()
    return {k: float(np.mean(values)) for k, values in found.items() if values}


def trained(accumulation: int, multiple: float, budget: int, corpus: Corpus) -> dict[str, Any]:
    """Trains a new model on `budget` micro-batches; returns its score."""
    settings = DEMO.optimizer
    rates = {name: getattr(settings, name) * multiple for name in ("learning_rate", "muon_learning_rate")}
    config: TrainConfig = replace(
        MICRO,
        accumulation_steps=accumulation,
        max_steps=budget // accumulation,
        optimizer=replace(settings, **rates),
    )
    model, batches = new_model(config, corpus), packed(config, corpus)
    started = time.perf_counter()
    for _ in steps(model, config, corpus, batches):
        pass
    return {
        "accumulation": accumulation,
        "steps": config.max_steps,
        "rate": multiple,
        "train_s": round(time.perf_counter() - started, 2),
        "bits_per_byte": round(bits_per_byte(model, config, corpus), 4),
    }


def report(results: dict[str, Any]) -> str:
    """Returns the results as Markdown tables, with a summary in sentences."""
    lines = ["# Gradient accumulation", "", f"`{results['command']}`", ""]
    columns = [f"{k}" for k in AVERAGED if k in results["noise"][0]["cosine"]]
    lines += [f"| step of the demo | noise scale, micro-batches | in tokens | {' | '.join(columns)} |"]
    lines += ["| --- " * (3 + len(columns)) + "|"]
    for row in results["noise"]:
        cosines = " | ".join(
            f"{row['cosine'][k]:.2f} ({row['foretold_cosine'][k] or float('nan'):.2f})" for k in row["cosine"]
        )
        scale, error = (row[key] or float("nan") for key in ("noise_scale", "noise_scale_error"))
        tokens = scale * MICRO.batch_size * DEMO.data.seq_length
        lines.append(f"| {row['step']} | {scale:.2g} ± {error:.1g} | {tokens:,.0f} | {cosines} |")
    lines += [
        "",
        "Columns 1, 2, ...: cosine between the mean gradient of that many micro-batches (8 rows of 128 tokens) and the",
    ]
    lines += ["gradient of a very large batch; in brackets, the cosine predicted from the noise scale.", ""]
    lines += ["| micro-batches per step | steps | multiple of the learning rate | bits per byte | seconds |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for row in results["equal_tokens"]:
        figures = (row["accumulation"], row["steps"], row["rate"], f"{row['bits_per_byte']:.3f}", row["train_s"])
        lines.append(f"| {' | '.join(map(str, figures))} |")
    return "\n".join([*lines, "", *conclusions(results), ""])


def conclusions(results: dict[str, Any]) -> list[str]:
    """Returns sentences that summarise the results of this run."""
    first, last = results["noise"][0], results["noise"][-1]
    scales = [f"{row['noise_scale'] or float('nan'):.2g} micro-batches at step {row['step']}" for row in (first, last)]
    best = {}
    for row in results["equal_tokens"]:
        best[row["accumulation"]] = min(best.get(row["accumulation"], row), row, key=lambda r: r["bits_per_byte"])
    scores = [
        f"{k} per step: {row['bits_per_byte']:.3f} (rate x {row['rate']:g}"
        + (", the smallest or largest tried)" if row["rate"] in (RATES[k][0], RATES[k][-1]) else ")")
        for k, row in best.items()
    ]
    winner = min(best.values(), key=lambda row: row["bits_per_byte"])["accumulation"]
    return [
        f"The noise scale changes from {scales[0]} to {scales[1]}.",
        "",
        f"At equal tokens, each with its best learning rate, bits per byte with {'; '.join(scores)}.",
        f"{winner} per step is best for this model, text and run length. More micro-batches per step take equal time",
        "for the same text, so on one machine they help only if the more accurate gradient outweighs the fewer steps.",
    ]


if __name__ == "__main__":
    main()
