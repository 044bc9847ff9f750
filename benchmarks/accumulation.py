"""What accumulating gradients does: how noisy a gradient is, what averaging makes of it, and what that is worth.

    python benchmarks/accumulation.py                                      about six minutes on two cores
    python benchmarks/accumulation.py --noise-at 2 --micro-batches 16 --averaged 32 --budget 16 --out trial.json

**Noise.** The demo preset trains; after 20, 100 and 300 of its 600 steps the gradients g_i of M independently drawn
micro-batches of 8 rows of 128 tokens are compared. With their mean m, unbiased estimates are

    tr S    = sum |g_i - m|^2 / (M - 1)            the variance of one micro-batch's gradient, over all weights
    |G|^2   = |m|^2 - tr S / M                     the true gradient's length: the mean's own noise is taken off
    B       = tr S / |G|^2                         micro-batches at which noise and gradient are equally long

B is the "simple noise scale" of arXiv 1812.06162, in micro-batches; B * 1,024 is in tokens. Its error is a jackknife's
over 8 blocks. Other micro-batches, 1 to 32 averaged, give the cosine with m that accumulation really reaches; beside it
stands what B foretells, |G|^2 / sqrt((|G|^2 + tr S / k) (|G|^2 + tr S / M)).

**Worth.** Fresh models train on the same rows in the same order, 320 micro-batches, an optimizer step after each, after
4 and after 16, each at three multiples of the preset's learning rates, warm-up and cosine as in the preset. The best
of the three counts. Bits per byte are those of the held-out scenes. One seed: differences below 0.01 say nothing.
"""

from __future__ import annotations

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages, as main.py has them; torch reads it once

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

from transformer.config import PRESETS, TrainConfig
from transformer.training_utils import Objective

RESULT = Path(__file__).parent / "results" / "accumulation.json"
DEMO = PRESETS["demo"]
MICRO = replace(DEMO, batch_size=8)
RATES = {1: (0.5, 1.0, 2.0), 4: (0.5, 1.0, 2.0), 16: (1.0, 2.0, 4.0)}
"""Multiples of the preset's learning rates that are tried, by micro-batches a step."""
AVERAGED = (1, 2, 4, 8, 16, 32)
BLOCKS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise-at", type=int, nargs="+", default=[20, 100, 300], help="steps of the demo")
    parser.add_argument("--micro-batches", type=int, default=256, help="M; a multiple of 8")
    parser.add_argument("--averaged", type=int, default=128, help="others, to be averaged; a multiple of 32")
    parser.add_argument("--budget", type=int, default=320, help="micro-batches of each training; a multiple of 16")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default 2)")
    parser.add_argument("--out", type=Path, default=RESULT, help="result file (default benchmarks/results/...)")
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
    """Measures the gradients of many micro-batches at the model as it is, and of averages of them."""
    length, generator = DEMO.data.seq_length, torch.Generator().manual_seed(1)
    text = torch.from_numpy(stream(corpus.train).astype(np.int64))
    rows = text[: (len(text) - 1) // length * length + 1].unfold(0, length + 1, length)  # (rows, T + 1)

    def drawn() -> Tensor:
        """The gradient of a micro-batch whose rows are drawn with replacement, so that all are independent."""
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
    foretold = {k: signal / ((signal + variance / k) * (signal + variance / count)) ** 0.5 for k in cosines}
    return {
        "variance": variance,
        "gradient_squared": signal,
        "noise_scale": variance / signal if signal > 0 else None,  # None: the gradient drowns in M's own noise
        "noise_scale_error": error if np.isfinite(error) else None,
        "cosine": {k: round(value, 4) for k, value in cosines.items()},
        "foretold_cosine": {k: round(value, 4) if signal > 0 else None for k, value in foretold.items()},
    }


def gradient(objective: Objective, rows: Tensor) -> Tensor:
    """Returns the gradient of the mean loss of rows (n, T + 1), all weights in one vector (parameters,)."""
    objective.zero_grad(set_to_none=True)
    nats, count = objective(rows[:, :-1], rows[:, 1:])
    (nats / count).backward()
    flat = torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None])
    objective.zero_grad(set_to_none=True)
    return flat


def estimate(total: Tensor, squares: float, count: int) -> tuple[float, float]:
    """Returns tr S and |G|^2 from the sum of the gradients, the sum of their squared lengths, and their number."""
    mean_squared = float((total / count).square().sum())
    variance = (squares - count * mean_squared) / (count - 1)
    return variance, mean_squared - variance / count


def averaged_cosines(drawn: Any, large: Tensor, count: int) -> dict[int, float]:
    """Returns the mean cosine between the large batch's gradient and averages of 1, 2, ... new micro-batches."""
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
    """Trains a fresh model on `budget` micro-batches; returns its score."""
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
    """Returns everything as tables in Markdown, and in words."""
    lines = ["# What accumulating gradients does", "", f"`{results['command']}`", ""]
    columns = [f"{k}" for k in AVERAGED if k in results["noise"][0]["cosine"]]
    lines += [f"| demo's step | noise scale, micro-batches | in tokens | {' | '.join(columns)} |"]
    lines += ["| --- " * (3 + len(columns)) + "|"]
    for row in results["noise"]:
        cosines = " | ".join(
            f"{row['cosine'][k]:.2f} ({row['foretold_cosine'][k] or float('nan'):.2f})" for k in row["cosine"]
        )
        scale, error = (row[key] or float("nan") for key in ("noise_scale", "noise_scale_error"))
        tokens = scale * MICRO.batch_size * DEMO.data.seq_length
        lines.append(f"| {row['step']} | {scale:.2g} ± {error:.1g} | {tokens:,.0f} | {cosines} |")
    lines += ["", "Columns 1, 2, ...: cosine between the mean of so many micro-batches (8 rows of 128 tokens) and the"]
    lines += ["gradient of a very large batch, and in brackets what the noise scale foretells.", ""]
    lines += ["| micro-batches a step | steps | multiple of the learning rate | bits per byte | seconds |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for row in results["equal_tokens"]:
        figures = (row["accumulation"], row["steps"], row["rate"], f"{row['bits_per_byte']:.3f}", row["train_s"])
        lines.append(f"| {' | '.join(map(str, figures))} |")
    return "\n".join([*lines, "", *conclusions(results), ""])


def conclusions(results: dict[str, Any]) -> list[str]:
    """Says in words what this run's figures show."""
    first, last = results["noise"][0], results["noise"][-1]
    scales = [f"{row['noise_scale'] or float('nan'):.2g} micro-batches at step {row['step']}" for row in (first, last)]
    best = {}
    for row in results["equal_tokens"]:
        best[row["accumulation"]] = min(best.get(row["accumulation"], row), row, key=lambda r: r["bits_per_byte"])
    told = [
        f"{k} a step: {row['bits_per_byte']:.3f} (rate x {row['rate']:g}"
        + (", the edge of what was tried)" if row["rate"] in (RATES[k][0], RATES[k][-1]) else ")")
        for k, row in best.items()
    ]
    winner = min(best.values(), key=lambda row: row["bits_per_byte"])["accumulation"]
    return [
        f"The noise scale goes from {scales[0]} to {scales[1]}.",
        "",
        f"At equal tokens, each at its best rate, bits per byte with {'; '.join(told)}.",
        f"Best is {winner} a step, for this model, text and length of run. More micro-batches a step take as much time",
        "for the same text, so that on one machine they pay only where the truer gradient makes up for fewer steps.",
    ]


if __name__ == "__main__":
    main()
