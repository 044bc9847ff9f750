"""Beside a busy loop: decoding, training and the loss, ours and plain PyTorch, by what waiting threads do.

    uv run python benchmarks/busy.py                    about eight minutes on two cores that are otherwise idle
    uv run python benchmarks/busy.py --quick            a tiny model, one round: only checks that the script works

Threads that wait for each other spin, which is fast on an idle machine and slow beside another program (see
src/transformer/cli/waiting.py). Each case is measured twice, on the quiet machine and beside one endless loop, which
this script starts and ends; and with three settings: PyTorch's own, what the commands set in this situation, and
OMP_WAIT_POLICY=passive. If two of them are the same here, they are measured once.

"decoding" generates greedily with the model of the preset default; "training" takes steps of 8 rows of 128 tokens with
it, in float32, with a fused AdamW; "loss" is the loss alone, forward and backward, at that shape. "ours" has the faster
versions of kernels/, "plain" is the code of the core files: nn.Linear, F.cross_entropy. All use huge pages.

Each contender is a process that waits until it is asked for one repetition. The contenders are asked in turn, in
alternating order, after an untimed repetition. Results are medians in tokens per second. The ratio that counts is ours
with the commands' setting, relative to plain code with PyTorch's own: it should be at least 1 beside the loop too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from machine import machine, result_file, typed_command

from transformer.cli.waiting import POLICY, SPIN_COUNT, others_use_the_cores, waiting
from transformer.config import Kernels

TASKS = ("decoding", "training", "loss")
KERNELS: dict[str, Kernels] = {"ours": "auto", "plain": "plain"}
ROWS, LENGTH, NEW_TOKENS = 8, 128, 64
FEWEST_ROUNDS = 3
LOOP_SECONDS = 900
"""The loop ends by itself after this time, even if this script was killed."""
Settings = dict[str, dict[str, str]]
"""Name -> environment variables."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="timed repetitions of each contender (default 9)")
    parser.add_argument(
        "--seconds", type=float, default=45, help=f"no further round after this time, if {FEWEST_ROUNDS} are done"
    )
    parser.add_argument("--quick", action="store_true", help="tiny model, one round; writes a file only with --out")
    parser.add_argument("--out", type=Path, help="result file (default benchmarks/results/busy_KIND.json)")
    parser.add_argument("--contender", nargs=3, help=argparse.SUPPRESS)  # task, kernels, preset: run as this process
    options = parser.parse_args()
    if options.contender:
        contend(*options.contender)
        return
    if not options.quick and others_use_the_cores():
        parser.error("another program uses the cores: this needs a quiet machine")
    out = options.out or (None if options.quick else result_file("busy"))
    results: dict[str, Any] = {"command": typed_command(), "machine": machine(), "settings": {}, "cases": []}
    for situation, context in {"quiet": contextlib.nullcontext, "busy": busy_loop}.items():
        with context():
            settings = results["settings"][situation] = settings_here()
            for task in TASKS:
                results["cases"].append(measure(situation, task, settings, options))
                print(rows(results["cases"][-1], settings), flush=True)
    print(verdict(results["cases"]))
    if out:
        out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def busy_loop() -> Iterator[None]:
    """Another program that uses one core, until the end of the block."""
    code = f"import time\nend = time.monotonic() + {LOOP_SECONDS}\nwhile time.monotonic() < end: pass"
    loop = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(0.5)
        yield
    finally:
        loop.kill()
        loop.wait()


def settings_here() -> Settings:
    """Returns the variables of each setting; "ours" are those that a command would set now."""
    return {"PyTorch's": {}, "ours": waiting(without_choice()), "passive": {POLICY: "passive"}}


def without_choice() -> dict[str, str]:
    """Returns the environment without a choice of the user's."""
    return {name: value for name, value in os.environ.items() if name not in (POLICY, SPIN_COUNT)}


def measure(situation: str, task: str, settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """Returns for each setting, ours and plain, the median tokens per second and the seconds of each repetition."""
    distinct = {name: chosen for name, chosen in settings.items() if name == first_with(chosen, settings)}
    keys = [f"{kernels}, {name}" for name in distinct for kernels in KERNELS]
    preset = "tiny" if options.quick else "default"
    with contextlib.ExitStack() as stack:
        running = {}
        for key in keys:
            kernels, name = key.split(", ")
            running[key] = stack.enter_context(contender(task, kernels, preset, distinct[name]))
        tokens = {key: ask(running[key])[1] for key in keys}  # the untimed repetition
        seconds: dict[str, list[float]] = {key: [] for key in keys}
        started = time.monotonic()
        for number in range(1 if options.quick else options.rounds):
            if number >= FEWEST_ROUNDS and time.monotonic() - started > options.seconds:
                break
            for key in keys[:: 1 if number % 2 else -1]:
                seconds[key].append(round(ask(running[key])[0], 6))
    speeds = {key: round(tokens[key] / statistics.median(times), 1) for key, times in seconds.items()}
    mine = speeds[f"ours, {first_with(settings['ours'], settings)}"]
    ratio = round(mine / speeds["plain, PyTorch's"], 3)
    case = {"situation": situation, "task": task, "tokens_per_s": speeds, "ours_over_plain": ratio}
    return {**case, "seconds": seconds}


def first_with(chosen: Mapping[str, str], settings: Settings) -> str:
    """Returns the first setting with these variables."""
    return next(name for name, variables in settings.items() if variables == chosen)


@contextlib.contextmanager
def contender(task: str, kernels: str, preset: str, chosen: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that takes one repetition for each line that it reads, until the end of the block."""
    environment = {**without_choice(), "THP_MEM_ALLOC_ENABLE": "1", **chosen}
    command = [sys.executable, __file__, "--contender", task, KERNELS[kernels], preset]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(process: subprocess.Popen[str]) -> tuple[float, int]:
    """Asks a contender for one repetition; returns its seconds and tokens."""
    assert process.stdin is not None
    assert process.stdout is not None
    print(file=process.stdin, flush=True)
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a contender ended: {process.args!r}")
    seconds, tokens = line.split()
    return float(seconds), int(tokens)


def contend(task: str, kernels: Kernels, preset: str) -> None:
    """Takes one repetition of the task per input line; prints its seconds and its number of tokens."""
    import torch

    torch.manual_seed(0)
    repeat, tokens = {"decoding": decoding, "training": training, "loss": loss}[task](kernels, preset)
    for _ in sys.stdin:
        started = time.perf_counter()
        repeat()
        print(time.perf_counter() - started, tokens, flush=True)


def decoding(kernels: Kernels, preset: str) -> tuple[Callable[[], object], int]:
    """Greedy decoding from a short prompt."""
    import torch

    from transformer.config import SAMPLING_PRESETS
    from transformer.inference.batch import generate_batch
    from transformer.kernels import accelerate
    from transformer.model import DecoderOnlyTransformer
    from transformer.presets import PRESETS

    shape = PRESETS[preset].model
    model = accelerate(DecoderOnlyTransformer(shape).eval(), kernels)
    new_tokens = min(NEW_TOKENS, shape.max_seq_len // 2)
    prompt = torch.randint(shape.vocab_size, (1, 8))
    return lambda: generate_batch(model, prompt, new_tokens, SAMPLING_PRESETS["greedy"]), new_tokens


def training(kernels: Kernels, preset: str) -> tuple[Callable[[], object], int]:
    """A training step of one micro-batch, in float32."""
    import torch

    from transformer.kernels import accelerate
    from transformer.model import DecoderOnlyTransformer
    from transformer.presets import PRESETS
    from transformer.training_utils import Objective

    shape = PRESETS[preset].model
    objective = Objective(accelerate(DecoderOnlyTransformer(shape), kernels))
    optimizer = torch.optim.AdamW(objective.parameters(), 1e-4, fused=True)
    length = min(LENGTH, shape.max_seq_len)
    batch = torch.randint(shape.vocab_size, (ROWS, length + 1))

    def step() -> None:
        nats, count = objective(batch[:, :-1], batch[:, 1:])
        (nats / count).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, ROWS * length


def loss(kernels: Kernels, preset: str) -> tuple[Callable[[], object], int]:
    """The loss of a micro-batch, forward and backward."""
    import torch

    from transformer.kernels import tiled_loss
    from transformer.loss import next_token_loss
    from transformer.presets import PRESETS

    shape = PRESETS[preset].model
    positions = ROWS * min(LENGTH, shape.max_seq_len)
    hidden = torch.randn(positions, shape.d_model, requires_grad=True)
    weight = torch.randn(shape.vocab_size, shape.d_model).mul_(0.05).requires_grad_()
    targets = torch.randint(shape.vocab_size, (positions,))
    chosen = next_token_loss if kernels == "plain" else tiled_loss.next_token_loss

    def repeat() -> None:
        chosen(hidden, weight, targets)[0].backward()
        hidden.grad = weight.grad = None

    return repeat, positions


def rows(case: dict[str, Any], settings: Settings) -> str:
    """Returns the case as lines of a Markdown table: tokens per second of ours and plain, by setting."""
    lines = []
    for name, chosen in settings.items():
        first = first_with(chosen, settings)
        shown = " | ".join(f"{case['tokens_per_s'][f'{kernels}, {first}']:,.0f}" for kernels in KERNELS)
        variables = " ".join(f"{key}={value}" for key, value in chosen.items()) or "none"
        lines.append(f"| {case['situation']} | {case['task']} | {name}: {variables} | {shown} |")
    return "\n".join(lines)


def verdict(cases: list[dict[str, Any]]) -> str:
    """Returns a line with the ratio of each case, and whether one of them is below 1."""
    shown = ", ".join(f"{case['situation']} {case['task']} {case['ours_over_plain']:.2f} x" for case in cases)
    slower = min(case["ours_over_plain"] for case in cases) < 1
    return f"ours relative to plain PyTorch: {shown}{'; slower than plain in places' * slower}"


if __name__ == "__main__":
    main()
