"""The tiled loss and PyTorch's chunked loss, F.linear_cross_entropy: time and memory, forward and backward.

    uv run python benchmarks/loss_kernels.py                              about eight minutes on two cores
    uv run python benchmarks/loss_kernels.py --shapes demo --repeats 3 --out trial.json

Each contender is a separate process that waits until it is asked for one forward and backward pass. The contenders are
asked in turn, so a temporary slowdown of the machine affects all of them. The first round is a warm-up; the growth of
the peak memory of the process in it is the reported memory. "bfloat16" is autocast with float32 weights, as in
training. Autocast leaves linear_cross_entropy in float32, so its two inputs are cast to bfloat16 explicitly. In the
"busy" cases, another process runs an endless loop. Chunks of 64 and 128 positions were slower than 256 for all shapes,
and PyTorch's default chunk size took 36 s where 256 positions took 1.3 s; neither is measured again.
"""

from __future__ import annotations

import os

os.environ.setdefault(
    "THP_MEM_ALLOC_ENABLE", "1"
)  # huge pages, as in main.py; PyTorch reads it at its first allocation

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
from transformer.kernels.tiled_loss import tiled_loss
from transformer.loss import next_token_loss as plain_loss

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
"""Name -> positions per chunk of PyTorch's loss; 0: our own loss."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument(
        "--repeats", type=int, default=5, help="timed rounds on a quiet machine; five times as many for demo"
    )
    parser.add_argument("--busy-repeats", type=int, default=3, help="timed rounds with a busy process")
    parser.add_argument("--threads", type=int, default=2, help="PyTorch threads (default 2)")
    parser.add_argument("--out", type=Path, default=RESULT, help="result file (default: the one in benchmarks/results)")
    parser.add_argument("--contender", nargs=3, help=argparse.SUPPRESS)  # name, shape, precision: run as this process
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
    """Runs one forward and backward pass per input line; prints its milliseconds and the growth of the peak memory."""
    positions, width, vocab = SHAPES[shape]
    torch.manual_seed(0)
    hidden = torch.randn(positions, width, requires_grad=True)
    weight = torch.randn(vocab, width).mul_(0.05).requires_grad_()  # in place: a freed copy would raise the peak
    targets = torch.randint(vocab, (positions,))
    for _ in sys.stdin:
        before, started = peak_bytes(), time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            nats = loss(name, hidden, weight, targets, precision)
        nats.backward()
        print((time.perf_counter() - started) * 1e3, peak_bytes() - before, flush=True)
        hidden.grad = weight.grad = None


def loss(name: str, hidden: Tensor, weight: Tensor, targets: Tensor, precision: str) -> Tensor:
    """Returns the summed nats, computed by this contender."""
    if not CONTENDERS[name]:
        return {"plain": plain_loss, "tiled": tiled_loss}[name](hidden, weight, targets)[0]
    if precision == "bfloat16":
        hidden, weight = hidden.bfloat16(), weight.bfloat16()
    chunks = torch.nn.LinearCrossEntropyOptions(
        chunking_method=None, batch_chunk_size=CONTENDERS[name], acc_policy="compact"
    )
    return F.linear_cross_entropy(hidden, weight, targets, reduction="sum", ignore_index=IGNORE, options=chunks)


def measure(shape: str, precision: str, busy: bool, options: argparse.Namespace) -> dict[str, Any]:
    """Returns for each contender the median and all times in ms, and the growth of the peak memory in bytes."""
    command = [sys.executable, __file__, "--threads", str(options.threads), "--contender"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = {name: subprocess.Popen([*command, name, shape, precision], **pipes) for name in CONTENDERS}
    peaks = {name: int(ask(process)[1]) for name, process in processes.items()}
    load = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    try:
        rounds = (options.busy_repeats if busy else options.repeats) * (
            5 if shape == "demo" else 1
        )  # short, so noisier
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
    """Asks a contender for one forward and backward pass; returns milliseconds and growth of the peak in bytes."""
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
    """Returns the results as a Markdown table."""
    lines = ["# The loss in tiles against F.linear_cross_entropy", "", f"`{results['command']}`", ""]
    lines += ["Median milliseconds of forward and backward; in brackets, growth of the peak memory in MiB.", ""]
    lines += [f"| shape | precision | machine | {' | '.join(CONTENDERS)} | best torch / tiled |", "| --- " * 8 + "|"]
    return "\n".join([*lines, *map(row, results["cases"]), ""])


if __name__ == "__main__":
    main()
