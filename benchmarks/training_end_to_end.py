"""Whole training runs, `main.py train`, transformers' GPT-2 and litgpt: tokens per second, peak memory, overhead.

    python benchmarks/training_end_to_end.py                          default and quick, float32, three rounds
    python benchmarks/training_end_to_end.py --precision bfloat16     the same under autocast, ours and the peers
    python benchmarks/training_end_to_end.py --presets quick --rounds 1 --contenders "main.py train" litgpt

Each contender is its own process, one after another, for several rounds. Ours is the command that a user types, with
its data path, display, metrics file, validation, checkpoint and plot. A peer is a plain loop (peers.py) that reads the
same rows as our run, already tokenized. All have the same sizes, micro-batches of 8 rows of 128 tokens, threads, fused
AdamW, gradient clipping, a cosine schedule, tied embeddings, dropout 0.1, and the same precision: float32, or autocast
to bfloat16. litgpt has rotary positions and no dropout, because it supports nothing else.

main.py sets THP_MEM_ALLOC_ENABLE=1, and beside other programs OMP_WAIT_POLICY (cli/waiting.py). Each peer runs without
these variables, as it comes, and with them ("tuned"). The verdict is against the best of all.

A step has 2 micro-batches instead of 16, to save time, so work done once per step weighs eight times as much as in the
presets, for all contenders. Tokens per second are those of all steps but the first, without validation and start-up;
`process_s` is the time of the whole process. Peak memory is the largest resident size of the whole process, as reported
by the operating system. "Best peer" is the peer with the most tokens per second. The result file is that of the kind of
processor, with an entry for each preset and precision; entries that are not measured again stay.

The overhead of the trainer is measured in one more run of the same command, in which forward, backward and the
optimizer step are timed. It is the remaining share of the time between the end of the first and of the last step.

litgpt is not a dependency of this project: uv fetches it for the run, or --litgpt names a Python that has it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import result_file, typed_command

from transformer.cli.waiting import waiting

ROOT = Path(__file__).resolve().parent.parent
OURS = "main.py train"
TUNED = ", tuned"
"""Ends the name of a peer that runs with the variables that main.py sets."""
PEERS = tuple(peer + end for peer in ("transformers GPT-2", "litgpt", "litgpt, compiled") for end in ("", TUNED))
WANTED_SPEED = {"float32": {"default": 1.7, "quick": 2.0}, "bfloat16": {"default": 2.2, "quick": 2.5}}
"""Goal: ratio to the tokens per second of the best peer, with at most half of its memory."""
WANTED_OVERHEAD = 0.03
PRESETS = ("default", "quick")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=PRESETS)
    parser.add_argument("--precision", choices=list(WANTED_SPEED), default="float32")
    parser.add_argument("--contenders", nargs="+", choices=(OURS, *PEERS), default=[OURS, *PEERS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="optimizer steps; the first is not timed")
    parser.add_argument("--accumulation-steps", type=int, default=2)
    parser.add_argument("--threads", type=int, help="threads of each contender (default: PyTorch's default)")
    parser.add_argument(
        "--litgpt", type=Path, metavar="PYTHON", help="a Python interpreter with litgpt and the same torch"
    )
    parser.add_argument("--out", type=Path, help="result file (default results/training_end_to_end_KIND.json)")
    options = parser.parse_args()
    options.out = options.out or result_file("training_end_to_end")
    if options.steps < 2:
        parser.error(f"--steps {options.steps}: at least 2, because the first is not timed")
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Runs all contenders in turn; writes the results so far to the result file after each run."""
    micro_batches = options.steps * options.accumulation_steps
    prepared = helper("prepare", str(folder), str(micro_batches), str(options.steps))
    entries = json.loads(options.out.read_text())["entries"] if options.out.exists() else {}
    fixed = {"command": typed_command(), "machine": prepared["machine"], "goal": WANTED_SPEED[options.precision]}
    for preset in options.presets:
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.contenders}
        entry = entries[f"{preset}, {options.precision}"] = {**fixed, "goal": fixed["goal"][preset], "runs": runs}
        for number in range(options.rounds):
            for name in options.contenders:
                run = run_ours if name == OURS else run_peer
                runs[name].append(run(name, preset, options, folder, prepared))
                row = {key: value for key, value in runs[name][-1].items() if key != "losses"}
                print(f"{preset}, round {number + 1}, {name}: {row}", flush=True)
                write(options.out, entries)
        entry["overhead"] = helper("overhead", *train_flags(preset, options, folder), threads=options.threads)
        entry |= summary(runs, entry["goal"])
        write(options.out, entries)
        print(table(f"{preset}, {options.precision}", entry), flush=True)


def write(out: Path, entries: dict[str, Any]) -> None:
    """Writes the result file with the results so far."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"entries": entries}, indent=2) + "\n", encoding="utf-8")


def train_flags(preset: str, options: argparse.Namespace, folder: Path) -> list[str]:
    """Returns the flags of our run: the bundled plays, few steps, a short evaluation at the end."""
    flags = {
        "preset": preset, "dataset": "shakespeare", "encoding": "cl100k_base", "device": "cpu",
        "precision": options.precision,
        "max-steps": options.steps, "accumulation-steps": options.accumulation_steps, "log-every": 1,
        "validation-tokens": 1024, "checkpoint-dir": folder / "run",
    }  # fmt: skip
    return [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]


def run_ours(
    name: str, preset: str, options: argparse.Namespace, folder: Path, prepared: dict[str, Any]
) -> dict[str, Any]:
    """Runs `main.py train` once; returns the speed and losses of its metrics file."""
    command = [sys.executable, str(ROOT / "main.py"), "train", *train_flags(preset, options, folder)]
    _, spent = watch(command, environment(options.threads), folder)
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "step"]
    first, last = steps[0], steps[-1]
    speed = (last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"])
    return {"tokens_per_s": round(speed, 1), **spent, "losses": [round(step["loss"], 4) for step in steps]}


def run_peer(
    name: str, preset: str, options: argparse.Namespace, folder: Path, prepared: dict[str, Any]
) -> dict[str, Any]:
    """Runs a peer in its own process, on the rows written by "prepare"."""
    python = [sys.executable]
    if name.startswith("litgpt"):
        python = litgpt_python(options.litgpt, prepared["machine"]["torch"])
    settings = {**prepared["presets"][preset], "peer": name.removesuffix(TUNED), "rows": str(folder / "rows.npy")}
    settings |= {"accumulation_steps": options.accumulation_steps, "precision": options.precision}
    command = [*python, str(ROOT / "benchmarks" / "peers.py"), json.dumps(settings)]
    shown, spent = watch(command, environment(options.threads, name.endswith(TUNED)), folder)
    figures = json.loads(shown.splitlines()[-1])
    tokens = settings["batch_size"] * settings["seq_length"] * options.accumulation_steps
    speed = tokens * (options.steps - 1) / sum(figures["step_s"][1:])
    return {"tokens_per_s": round(speed, 1), **spent, "losses": figures["losses"]}


def litgpt_python(chosen: Path | None, torch: str) -> list[str]:
    """Returns the command for a Python with litgpt: the given one, or uv, which fetches it for this torch version."""
    fetched = ["uv", "run", "--no-project", "--with", "litgpt==0.5.13", "--with", f"torch=={torch.split('+')[0]}"]
    return [str(chosen)] if chosen else [*fetched, "python"]


def environment(threads: int | None, is_tuned: bool = False) -> dict[str, str]:
    """Returns the environment variables of a contender's process, possibly with those that main.py sets for itself."""
    kept = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    kept |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return {**kept, **waiting(kept), "THP_MEM_ALLOC_ENABLE": "1"} if is_tuned else kept


def watch(command: list[str], environment: dict[str, str], folder: Path) -> tuple[str, dict[str, float]]:
    """Runs a process to its end; returns its output, its seconds and its peak memory.

    The peak of a child starts at that of its parent, so this process must stay small: it never imports torch.
    """
    started = time.perf_counter()
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=out, stderr=err)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    shown, complaint = ((folder / name).read_text() for name in ("out", "err"))
    if process.returncode:
        raise RuntimeError(f"{shlex.join(command)[:200]} exited with status {process.returncode}:\n{complaint[-2000:]}")
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return shown, {"peak_mib": round(peak / 2**20), "process_s": round(time.perf_counter() - started, 1)}


def helper(*arguments: str, threads: int | None = None) -> dict[str, Any]:
    """Runs a part of end_to_end_helper.py in a new process; returns its result."""
    command = [sys.executable, str(ROOT / "benchmarks" / "end_to_end_helper.py"), *arguments]
    done = subprocess.run(
        command, env=environment(threads, is_tuned=True), stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def summary(runs: dict[str, list[dict[str, Any]]], wanted_speed: float) -> dict[str, Any]:
    """Returns the medians of each contender, and our median ratios to each peer and to the best one."""
    medians = {
        name: {key: statistics.median(run[key] for run in rounds) for key in ("tokens_per_s", "peak_mib", "process_s")}
        for name, rounds in runs.items()
    }
    peers = [name for name in runs if name != OURS]
    found: dict[str, Any] = {"medians": medians}
    if OURS not in runs or not peers:
        return found

    def ratio(peer: str, key: str) -> float:
        pairs = zip(runs[OURS], runs[peer], strict=True)
        return round(statistics.median(mine[key] / its[key] for mine, its in pairs), 3)

    best = max(peers, key=lambda name: medians[name]["tokens_per_s"])
    speeds = {name: ratio(name, "tokens_per_s") for name in peers}
    memory = {name: ratio(name, "peak_mib") for name in peers}
    return {
        **found,
        "speed_over": speeds,
        "memory_over": memory,
        "best_peer": best,
        "speed_over_best": speeds[best],
        "memory_over_best": memory[best],
        "speed_is_as_wanted": speeds[best] >= wanted_speed,
        "memory_is_as_wanted": memory[best] <= 0.5,
    }


def table(title: str, result: dict[str, Any]) -> str:
    """Returns the medians as a Markdown table, and the goals."""
    lines = [f"| {title} | tokens/s | ours over it | peak MiB | ours over it | whole process, s |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for name, row in result["medians"].items():
        speed, memory = (result.get(key, {}).get(name) for key in ("speed_over", "memory_over"))
        ratios = [f"{value:.2f} x" if value else "" for value in (speed, memory)]
        figures = [f"{row['tokens_per_s']:,.0f}", ratios[0], f"{row['peak_mib']:,.0f}", ratios[1]]
        lines.append(f"| {name} | {' | '.join(figures)} | {row['process_s']:.0f} |")
    if "best_peer" in result:
        lines.append(
            f"goal: {result['goal']} x the best peer's speed (measured {result['speed_over_best']:.2f}), "
            f"at most 0.5 x its memory (measured {result['memory_over_best']:.2f})"
        )
    share = result["overhead"]["overhead"]
    return "\n".join([*lines, f"overhead of the trainer: {share:.2%} of a step, goal below {WANTED_OVERHEAD:.0%}"])


if __name__ == "__main__":
    main()
