"""Our loss in tiles against PyTorch's own in chunks, F.linear_cross_entropy: time and memory, forward and backward.

    uv run python benchmarks/loss_kernels.py                              some eight minutes on two cores
    uv run python benchmarks/loss_kernels.py --shapes demo --repeats 3 --out trial.json

Each contender lives in a process of its own, which does nothing until it is asked for one forward and backward; they
are asked in turn, so that what slows the machine down for a while slows all. The first round warms up, and its growth
of the process's largest size is the memory. "bfloat16" is autocast with float32 weights, as training has it; autocast
leaves linear_cross_entropy in float32, so both its inputs are made bfloat16 by hand there. "Busy" has beside it a
process that counts for ever. Chunks of 64 and 128 positions were slower than 256 at all shapes, and PyTorch's own
choice of chunk took 36 s where 256 positions took 1.3 s; neither is measured again.
"""

from __future__ import annotations

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages, as main.py has them; torch reads it once

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import machine, peak_bytes, typed_command
from torch import Tensor

from transformer.config import IGNORE
from transformer.loss import plain_loss, tiled_loss

RESULT = Path(__file__).parent / "results" / "loss_kernels.json"
SHAPES = {
    "default": (1024, 256, 100_277),
    "quick": (1024, 128, 100_277),
    "demo": (2048, 128, 4_096),
    "gpt2": (1024, 768, 50_281),
}
"""Positions, width and vocabulary."""
BUSY_SHAPES = ("default", "demo")
CONTENDERS = {"plain": 0, "tiled": 0, "torch 256": 256, "torch 512": 512}
"""Positions in a chunk, for PyTorch's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds, quiet; of demo five times as many")
    parser.add_argument("--busy-repeats", type=int, default=3, help="timed rounds beside a busy process")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default 2)")
    parser.add_argument("--out", type=Path, default=RESULT, help="result file (default benchmarks/results/...)")
    parser.add_argument("--contender", nargs=3, help=argparse.SUPPRESS)  # name, shape, precision: be that process
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.contender:
        contend(*options.contender)
        return
    results: dict[str, Any] = {"command": typed_command(), "machine": machine(), "cases": []}
    for busy in (False, True):
        for shape in (name for name in options.shapes if not busy or name in BUSY_SHAPES):
            for precision in ("float32", "bfloat16"):
                results["cases"].append(measure(shape, precision, busy, options))
                print(row(results["cases"][-1]), flush=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(report(results), encoding="utf-8")
    print(report(results))


def contend(name: str, shape: str, precision: str) -> None:
    """One contender's process: for each line read, one forward and backward, answered with its ms and peak growth."""
    positions, width, vocab = SHAPES[shape]
    torch.manual_seed(0)
    hidden = torch.randn(positions, width, requires_grad=True)
    weight = torch.randn(vocab, width).mul_(0.05).requires_grad_()  # in place: a copy freed would hide in the peak
    targets = torch.randint(vocab, (positions,))
    for _ in sys.stdin:
        before, started = peak_bytes(), time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            nats = loss(name, hidden, weight, targets, precision)
        nats.backward()
        print((time.perf_counter() - started) * 1e3, peak_bytes() - before, flush=True)
        hidden.grad = weight.grad = None


def loss(name: str, hidden: Tensor, weight: Tensor, targets: Tensor, precision: str) -> Tensor:
    """Returns the summed nats, as the contender computes them."""
    if not CONTENDERS[name]:
        return {"plain": plain_loss, "tiled": tiled_loss}[name](hidden, weight, targets)[0]
    if precision == "bfloat16":
        hidden, weight = hidden.bfloat16(), weight.bfloat16()
    chunks = torch.nn.LinearCrossEntropyOptions(
        chunking_method=None, batch_chunk_size=CONTENDERS[name], acc_policy="compact"
    )
    return F.linear_cross_entropy(hidden, weight, targets, reduction="sum", ignore_index=IGNORE, options=chunks)


def measure(shape: str, precision: str, busy: bool, options: argparse.Namespace) -> dict[str, Any]:
    """Returns each contender's median and all its times in ms, and its peak growth in bytes."""
    command = [sys.executable, __file__, "--threads", str(options.threads), "--contender"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = {name: subprocess.Popen([*command, name, shape, precision], **pipes) for name in CONTENDERS}
    peaks = {name: int(ask(process)[1]) for name, process in processes.items()}
    load = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    try:
        rounds = (options.busy_repeats if busy else options.repeats) * (5 if shape == "demo" else 1)  # short, so noisy
        for number in range(rounds):
            for name in list(CONTENDERS)[:: 1 if number % 2 else -1]:
                times[name].append(round(ask(processes[name])[0], 2))
    finally:
        for process in [*processes.values(), *([load] if load else [])]:
            process.kill()
            process.wait()
    medians = {name: statistics.median(values) for name, values in times.items()}
    best_torch = min(value for name, value in medians.items() if CONTENDERS[name])
    case = {"shape": shape, "precision": precision, "busy": busy, "median_ms": medians, "peak_growth_bytes": peaks}
    return {**case, "best_torch_over_tiled": round(best_torch / medians["tiled"], 3), "ms": times}


def ask(process: subprocess.Popen[str]) -> list[float]:
    """Has a contender do one forward and backward; returns its ms and the bytes its peak grew by."""
    reader: Any = process.stdout
    print(file=process.stdin, flush=True)
    return [float(word) for word in reader.readline().split()]


def row(case: dict[str, Any]) -> str:
    figures = [
        f"{case['median_ms'][name]:,.0f} ({case['peak_growth_bytes'][name] / 2**20:,.0f})" for name in CONTENDERS
    ]
    start = f"| {case['shape']} | {case['precision']} | {'busy' if case['busy'] else 'quiet'} | "
    return start + f"{' | '.join(figures)} | {case['best_torch_over_tiled']:.2f} |"


def report(results: dict[str, Any]) -> str:
    """Returns everything as a table in Markdown."""
    lines = ["# The loss in tiles against F.linear_cross_entropy", "", f"`{results['command']}`", ""]
    lines += ["Milliseconds of a forward and backward, medians; in brackets MiB that the peak grows by.", ""]
    lines += [f"| shape | numbers | machine | {' | '.join(CONTENDERS)} | best torch / tiled |", "| --- " * 8 + "|"]
    return "\n".join([*lines, *map(row, results["cases"]), ""])


if __name__ == "__main__":
    main()
