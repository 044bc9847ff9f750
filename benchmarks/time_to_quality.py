"""Quality after the same wall time: `main.py train --preset demo` and nanoGPT's recipe for a CPU, on the same text.

    python benchmarks/time_to_quality.py                one round, about five minutes on two cores; --rounds 3 for more
    python benchmarks/time_to_quality.py --demo-steps 20 --out trial.json

Ours is the command, timed as a whole process: imports, training of the tokenizer, 600 steps, three evaluations,
checkpoint and plot. The baseline then trains for the same number of seconds; its start-up, including reading the text,
is not counted. It is nanoGPT's recipe for Shakespeare by characters, as its README gives it for a CPU: 4 layers of 4
heads, width 128, context 64, 12 rows per step from random offsets, no dropout, no biases, AdamW with learning rate
1e-3, betas 0.9 and 0.99, weight decay 0.1, gradient clipping at 1, warm-up over a twentieth of the run, cosine decay to
a tenth. The README's run has 2000 steps; here it has as many as fit, and the schedule follows the clock. It is built
from our model class.

Both are evaluated on all held-out scenes with the same function, including the end-of-text token after each scene. Bits
are divided by the UTF-8 bytes of the scenes, so that characters and longer tokens are comparable.
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
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo_recipe import bits_per_byte, new_model, read_corpus, stream, update
from machine import machine, typed_command
from torch import Tensor

from transformer.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from transformer.optimizer import build_optimizers, set_learning_rate
from transformer.presets import PRESETS
from transformer.scheduler import lr_scale
from transformer.text import Tokens
from transformer.training import checkpoint
from transformer.training_utils import Objective

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "time_to_quality.json"
NANOGPT = TrainConfig(
    model=ModelConfig(d_model=128, num_heads=4, num_layers=4, d_ff=512, max_seq_len=64, dropout=0.0, bias=False),
    data=DataConfig("shakespeare", "characters", seq_length=64),
    optimizer=OptimizerConfig(learning_rate=1e-3, beta2=0.99, warmup_fraction=0.05),
    batch_size=12, accumulation_steps=1,
)  # fmt: skip
CLOCK = 1_000_000
"""Steps of the learning rate schedule over the whole time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the first round; each further round adds 1 (default 1)"
    )
    parser.add_argument(
        "--demo-steps", type=int, default=PRESETS["demo"].max_steps, help="steps of the demo; fewer for a trial"
    )
    parser.add_argument("--threads", type=int, default=2, help="PyTorch threads (default 2)")
    parser.add_argument("--out", type=Path, default=RESULT, help="result file (default: the one in benchmarks/results)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {"command": typed_command()}
    results |= {"machine": machine(), "runs": []}
    for seed in range(options.seed, options.seed + options.rounds):
        ours = run_demo(seed, options.demo_steps, options.threads)
        for row in (ours, run_nanogpt(seed, ours["wall_s"])):
            results["runs"].append(row)
            print(json.dumps(row), flush=True)
            options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
            if row is ours:
                print(f"nanoGPT's recipe trains for {ours['wall_s']} s", flush=True)
    options.out.with_suffix(".md").write_text(report(results), encoding="utf-8")
    print(report(results))


def run_demo(seed: int, steps: int, threads: int) -> dict[str, Any]:
    """Runs `main.py train --preset demo`; returns its seconds and the score of its checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--preset", "demo", "--seed", str(seed), "--max-steps", str(steps), "--checkpoint-dir", folder]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, str(ROOT / "main.py"), "train", *flags]
        started = time.perf_counter()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        wall = time.perf_counter() - started
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
        (saved,) = Path(folder).glob("model_epoch_*.pt")
        model = checkpoint.load_model(saved).model
    (end,) = [line for line in lines if line["event"] == "end"]
    config = PRESETS["demo"]
    return {
        "recipe": "main.py train --preset demo",
        "seed": seed,
        "wall_s": round(wall, 2),
        "training_s": round(end["seconds"], 2),
        "steps": end["step"],
        "bits_per_byte": round(bits_per_byte(model, config, read_corpus(config.data.encoding)), 4),
    }


def run_nanogpt(seed: int, seconds: float) -> dict[str, Any]:
    """Trains the baseline for the given seconds; returns its score."""
    corpus, config = read_corpus("characters"), replace(NANOGPT, seed=seed)
    model = new_model(config, corpus)
    objective, optimizers = Objective(model), build_optimizers(model, config.optimizer)
    batches = random_offsets(stream(corpus.train), config.data.seq_length, config.batch_size, seed)
    steps, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        set_learning_rate(optimizers, lr_scale(int(passed / seconds * CLOCK), CLOCK, config.optimizer))
        update(objective, config, optimizers, batches)
        steps += 1
    return {
        "recipe": "nanoGPT's",
        "seed": seed,
        "wall_s": round(passed, 2),
        "training_s": round(passed, 2),
        "steps": steps,
        "bits_per_byte": round(bits_per_byte(model, config, corpus), 4),
    }


def random_offsets(tokens: Tokens, seq_length: int, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields nanoGPT's batches: rows from random offsets; inputs and targets (B, T) int64."""
    ids = torch.from_numpy(tokens.astype(np.int64))
    generator = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(ids) - seq_length, (batch_size, 1), generator=generator)  # (B, 1)
        rows = ids[starts + torch.arange(seq_length + 1)]  # (B, T + 1)
        yield rows[:, :-1], rows[:, 1:]


def report(results: dict[str, Any]) -> str:
    """Returns the medians as a Markdown table."""
    lines = ["# Bits per byte of the held-out text after the same wall time", "", f"`{results['command']}`", ""]
    lines += ["| recipe | wall s | training s | steps | bits per byte |", "| --- | --- | --- | --- | --- |"]
    scores = []
    for name in dict.fromkeys(row["recipe"] for row in results["runs"]):
        rows = [row for row in results["runs"] if row["recipe"] == name]
        wall, training, steps, score = (
            statistics.median(row[key] for row in rows) for key in ("wall_s", "training_s", "steps", "bits_per_byte")
        )
        lines.append(f"| {name} | {wall:.1f} | {training:.1f} | {steps:.0f} | {score:.3f} |")
        scores.append(score)
    where = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    rounds = len(results["runs"]) // len(scores)
    lines += ["", f"Medians of {rounds} round(s); the demo is {scores[1] - scores[0]:.3f} better. {where}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
