"""Checks for a GPU: fast versions give the same results as plain ones; then tokens per second. Within 15 minutes.

    make gpu-check                                        correctness, then the presets gpt2 and default
    python benchmarks/gpu_check.py --minutes 5            the same, as far as it gets in five minutes
    python benchmarks/gpu_check.py --only int8 activ      the parts whose names contain one of these words
    python benchmarks/gpu_check.py --device cpu --quick   all parts with tiny shapes: only checks that they run

Correctness (gpu_correctness.py): fused against explicit attention, the tiled loss against PyTorch's cross-entropy,
bfloat16 and float16 against float32, activation checkpointing against plain training, a resumed run against an
uninterrupted one, a model sharded over one process against a whole one, a compiled step against an eager one, the
ways to generate against each other, among them int8 and the compiled decode step, which on a GPU is a CUDA graph, and
activations recorded on the device against those of the CPU.

Speed: whole training steps of the Trainer on random tokens, and greedy generation, eager and compiled. As in a run with
--log-every 5, the numbers are read after TIMED_STEPS steps: the clock stops when they have arrived from the device, so
the work behind them is done. Utilisation (MFU) is tokens per second times FLOPs per token (planning/cost.py) divided by
the peak of the device (planning/hardware.py). A step has at most MOST_MICRO_BATCHES, fewer than the presets have, to
save time. "gpt2, 32 rows" has the step of gpt2, in micro-batches of 32 rows instead of 4, which a large GPU needs to be
busy; "no dropout" is the same with --dropout 0, as a text that is read only once needs none.

No part begins that is expected to end after --minutes; the result file names what was left out. It is written after
each part, so an interrupted run leaves what it found. The exit status is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gpu_correctness
import torch
from gpu_correctness import SMALL, random_text, run_of
from gpu_generation import activations, generation, generation_speed
from machine import machine, typed_command

from transformer.config import TrainConfig
from transformer.planning.cost import flops
from transformer.planning.hardware import device_peak, utilisation
from transformer.presets import PRESETS
from transformer.trainer import Trainer
from transformer.training.device import peak_memory_bytes, pick_device

RESULTS = Path(__file__).resolve().parent / "results"
TIMED_STEPS, WARM_STEPS, BLOCKS = 5, 2, 2
MOST_MICRO_BATCHES = 32
EAGER_S, COMPILED_S = 20, 75
"""Expected seconds of a part, of which compiling takes most; they decide only whether a part still begins."""


@dataclass(frozen=True)
class Part:
    """A check or a timing."""

    section: str
    name: str
    run: Callable[[], Any]
    is_compiled: bool = False


def main() -> int:
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=12, help="begin no part that would end later (default 12)")
    parser.add_argument(
        "--quick", "--small", action="store_true", help="tiny shapes; do not compile; a file only with --out"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", default=[""], help="parts whose names contain one of these"
    )
    parser.add_argument("--out", type=Path, help="result file (default results/gpu_check_DEVICE.json)")
    options = parser.parse_args()
    device = pick_device(options.device)
    torch.manual_seed(0)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    slug = re.sub(r"\W+", "_", name.lower())
    out = options.out or (None if options.quick else RESULTS / f"gpu_check_{slug}.json")
    found: dict[str, Any] = {
        "command": typed_command(),
        "machine": machine() | {"device": name, "cuda": torch.version.cuda},
    }
    found |= {"correctness": {}, "speed": {}, "left_out": []}
    for part in parts_of(device, options.quick):
        if not any(word in part.name for word in options.only):
            continue
        expected = COMPILED_S if part.is_compiled else EAGER_S
        if time.monotonic() - started + expected > options.minutes * 60:
            found["left_out"].append(f"{part.section}: {part.name}")
        else:
            found[part.section][part.name] = outcome_of(part.name, part.run)
            release(device, part.is_compiled)
        found["minutes"] = round((time.monotonic() - started) / 60, 1)
        if out:
            out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if found["left_out"]:
        print(f"left out, because {options.minutes:g} minutes are over: {'; '.join(found['left_out'])}")
    print(out or "no result file")
    return int(any("failed" in str(outcome) for outcome in (*found["correctness"].values(), *found["speed"].values())))


def parts_of(device: torch.device, quick: bool) -> list[Part]:
    """Returns all parts, the most important ones first."""
    checks = {
        "attention": gpu_correctness.attention, "loss": gpu_correctness.loss,
        "reduced precision": gpu_correctness.reduced_precision,
        "activation checkpointing": gpu_correctness.activation_checkpointing, "resume": gpu_correctness.resumed,
        "shard": gpu_correctness.sharded,
    }  # fmt: skip
    parts = [Part("correctness", name, partial(check, device)) for name, check in checks.items()]
    parts.append(Part("correctness", "generation", partial(generation, SMALL, device, compiled=not quick), not quick))
    run = partial(activations, SMALL, device, compiled=not quick)
    parts.append(Part("correctness", "activations", run, not quick))
    if quick:
        parts.append(Part("speed", "small, eager", partial(speed, run_of(SMALL), device, False)))
        return [*parts, Part("speed", "generation, eager", partial(generation_speed, SMALL, device, "eager", 16))]
    parts.append(Part("correctness", "compile", partial(gpu_correctness.compiled, device), True))
    gpt2 = PRESETS["gpt2"]
    wide = replace(gpt2, batch_size=32, accumulation_steps=16)
    no_dropout = replace(wide, model=replace(wide.model, dropout=0.0))
    presets = {"gpt2, 32 rows, no dropout": no_dropout, "gpt2, 32 rows": wide, "default": PRESETS["default"]}
    for name, config in (presets | {"gpt2": gpt2}).items():
        parts.append(Part("speed", f"{name}, eager", partial(speed, config, device, False)))
        parts.append(Part("speed", f"{name}, compiled", partial(speed, config, device, True), True))
    shape = replace(PRESETS["default"].model, max_seq_len=1024, dropout=0.0)
    for kind in ("eager", "compiled", "bfloat16 compiled", "int8", "int8 compiled"):
        run = partial(generation_speed, shape, device, kind, 500)
        parts.append(Part("speed", f"generation, {kind}", run, "compiled" in kind))
    return parts


def outcome_of(name: str, check: Callable[[], Any]) -> Any:
    """Returns the result of the check, or its error as text; prints it immediately."""
    try:
        outcome = check()
    except torch.OutOfMemoryError:
        outcome = "not possible: this device has too little memory"
    except Exception as error:
        outcome = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    print(f"{name:<26}{outcome}", flush=True)
    return outcome


def release(device: torch.device, was_compiled: bool) -> None:
    """Frees the memory of a part, and what torch.compile has kept for it."""
    if was_compiled:
        torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def speed(config: TrainConfig, device: torch.device, is_compiled: bool) -> dict[str, Any]:
    """Times whole training steps; reports the mean of BLOCKS blocks of TIMED_STEPS, without the warm-up steps."""
    micro_batches = min(MOST_MICRO_BATCHES, config.accumulation_steps)
    steps = {"max_steps": WARM_STEPS + BLOCKS * TIMED_STEPS, "accumulation_steps": micro_batches}
    config = replace(config, compile=is_compiled, device=device.type, **steps)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    trainer = Trainer(config, random_text(config))
    built = time.perf_counter() - started
    seconds = []
    for block in (1, WARM_STEPS - 1, *[TIMED_STEPS] * BLOCKS):
        begun = time.perf_counter()
        for _ in range(block):
            trainer.train_step()
        trainer.report()  # waits for the device
        seconds.append((time.perf_counter() - begun) / block)
    tokens_per_second = config.tokens_per_step / statistics.fmean(seconds[2:])
    peak = device_peak(device, trainer.precision.dtype)
    share = utilisation(tokens_per_second, sum(flops(config.model, config.data.seq_length).values()), peak and peak[0])
    return {
        "tokens_per_s": round(tokens_per_second),
        "tokens_per_step": config.tokens_per_step,
        "utilisation": None if share is None else round(share, 4),
        "peak": peak,
        "precision": str(trainer.precision.dtype).removeprefix("torch."),
        "memory_bytes": peak_memory_bytes(device),
        "first_step_s": round(seconds[0] + built, 1),
        "step_s": [round(second, 4) for second in seconds],
    }


if __name__ == "__main__":
    sys.exit(main())
