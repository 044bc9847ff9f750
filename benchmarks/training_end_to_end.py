"""Whole training runs, `main.py train` against transformers' GPT-2 and litgpt: tokens a second, peak memory, overhead.

    python benchmarks/training_end_to_end.py             default and quick, three rounds; about 12 minutes on two cores
    python benchmarks/training_end_to_end.py --presets quick --rounds 1 --contenders "main.py train" litgpt

Each contender is a process of its own, one after another, round after round. Ours is the command that a user types,
with its data path, display, metrics file, validation, checkpoint and picture. A peer is a plain loop (peers.py) that is
handed the very rows that our run reads, already tokenized. All have the same sizes, micro-batches of 8 rows of 128
tokens, fused AdamW, clipping, cosine, tied embeddings, float32 and dropout 0.1; litgpt has rotary positions and no
dropout, since it knows nothing else. Only main.py sets THP_MEM_ALLOC_ENABLE=1; --peer-huge-pages gives it to the peers.

A step has 2 micro-batches, not 16, to save time: what comes once a step then weighs eight times as much as it does in
the presets, for all alike. Tokens a second are those of all steps but the first; validation and start are not in
them, and `process_s` has all. Peak memory is the whole process's largest resident size, told by the operating system.
"Best peer" is the one with the most tokens a second.

The trainer's overhead is measured in one more run of the same command, in which forward, backward and the optimizer's
step are timed. It is what is left of the time between the end of the first step and the end of the last, as a share.

litgpt is not among this project's dependencies: uv fetches it for the run, or --litgpt names a Python that has it.
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

from machine import typed_command

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "training_end_to_end.json"
OURS = "main.py train"
PEERS = ("transformers GPT-2", "litgpt", "litgpt, compiled")
WANTED_SPEED = {"default": 1.8, "quick": 2.0}
"""Times the best peer's tokens a second; with at most half of its memory."""
WANTED_OVERHEAD = 0.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=list(WANTED_SPEED), default=list(WANTED_SPEED))
    parser.add_argument("--contenders", nargs="+", choices=(OURS, *PEERS), default=[OURS, *PEERS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="optimizer steps, the first of which is not timed")
    parser.add_argument("--accumulation-steps", type=int, default=2)
    parser.add_argument("--threads", type=int, help="threads of every contender (default: PyTorch's choice)")
    parser.add_argument("--peer-huge-pages", action="store_true")
    parser.add_argument("--litgpt", type=Path, metavar="PYTHON", help="a Python with litgpt and the same torch")
    parser.add_argument("--out", type=Path, default=RESULT, help="result file (default benchmarks/results/...)")
    options = parser.parse_args()
    if options.steps < 2:
        parser.error(f"--steps {options.steps}: at least 2, since the first is not timed")
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Runs all contenders in turn; writes what there is to the result file after each run."""
    micro_batches = options.steps * options.accumulation_steps
    prepared = helper("prepare", str(folder), str(micro_batches), str(options.steps))
    results: dict[str, Any] = {"command": typed_command()}
    results |= {"machine": prepared["machine"], "peer_huge_pages": options.peer_huge_pages, "presets": {}}
    for preset in options.presets:
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.contenders}
        for number in range(options.rounds):
            for name in options.contenders:
                run = run_ours if name == OURS else run_peer
                runs[name].append(run(name, preset, options, folder, prepared))
                row = {key: value for key, value in runs[name][-1].items() if key != "losses"}
                print(f"{preset}, round {number + 1}, {name}: {row}", flush=True)
                write(options.out, results, preset, {"runs": runs})
        overhead = helper("overhead", *train_flags(preset, options, folder), threads=options.threads)
        write(options.out, results, preset, {**summary(preset, runs), "overhead": overhead})
        print(table(preset, results["presets"][preset]), flush=True)


def write(out: Path, results: dict[str, Any], preset: str, found: dict[str, Any]) -> None:
    """Writes the result file, with what was found for the preset so far."""
    results["presets"][preset] = found
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def train_flags(preset: str, options: argparse.Namespace, folder: Path) -> list[str]:
    """The flags of our run: the bundled plays, few steps, a short look at the validation text at the end."""
    flags = {
        "preset": preset, "dataset": "shakespeare", "encoding": "cl100k_base", "device": "cpu",
        "max-steps": options.steps, "accumulation-steps": options.accumulation_steps, "log-every": 1,
        "validation-tokens": 1024, "checkpoint-dir": folder / "run",
    }  # fmt: skip
    return [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]


def run_ours(
    name: str, preset: str, options: argparse.Namespace, folder: Path, prepared: dict[str, Any]
) -> dict[str, Any]:
    """One `main.py train`; its speed and losses are those of its own metrics file."""
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
    """One peer's process, on the rows that `prepare` wrote."""
    python = [sys.executable]
    if name.startswith("litgpt"):
        python = litgpt_python(options.litgpt, prepared["machine"]["torch"])
    settings = {**prepared["presets"][preset], "peer": name, "rows": str(folder / "rows.npy")}
    settings["accumulation_steps"] = options.accumulation_steps
    command = [*python, str(ROOT / "benchmarks" / "peers.py"), json.dumps(settings)]
    shown, spent = watch(command, environment(options.threads, options.peer_huge_pages), folder)
    figures = json.loads(shown.splitlines()[-1])
    tokens = settings["batch_size"] * settings["seq_length"] * options.accumulation_steps
    speed = tokens * (options.steps - 1) / sum(figures["step_s"][1:])
    return {"tokens_per_s": round(speed, 1), **spent, "losses": figures["losses"]}


def litgpt_python(chosen: Path | None, torch: str) -> list[str]:
    """The words that start a Python with litgpt: the one that was chosen, or uv fetching it for this torch."""
    fetched = ["uv", "run", "--no-project", "--with", "litgpt==0.5.13", "--with", f"torch=={torch.split('+')[0]}"]
    return [str(chosen)] if chosen else [*fetched, "python"]


def environment(threads: int | None, huge_pages: bool = False) -> dict[str, str]:
    """The variables of a contender's process."""
    chosen = {"THP_MEM_ALLOC_ENABLE": "1"} if huge_pages else {}
    kept = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    return {**kept, **chosen, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}


def watch(command: list[str], environment: dict[str, str], folder: Path) -> tuple[str, dict[str, float]]:
    """Runs a process to its end; returns what it printed, its seconds and its peak memory.

    A child's peak begins at its parent's, so this process must stay small: it never imports torch.
    """
    started = time.perf_counter()
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=out, stderr=err)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    shown, complaint = ((folder / name).read_text() for name in ("out", "err"))
    if process.returncode:
        raise RuntimeError(f"{shlex.join(command)[:200]} ended with {process.returncode}:\n{complaint[-2000:]}")
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return shown, {"peak_mib": round(peak / 2**20), "process_s": round(time.perf_counter() - started, 1)}


def helper(*arguments: str, threads: int | None = None) -> dict[str, Any]:
    """Runs a part of end_to_end_helper.py in a fresh process; returns its result."""
    command = [sys.executable, str(ROOT / "benchmarks" / "end_to_end_helper.py"), *arguments]
    done = subprocess.run(command, env=environment(threads), stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def summary(preset: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Returns every contender's medians, and ours over each peer and over the best one: medians over the rounds."""
    medians = {
        name: {key: statistics.median(run[key] for run in rounds) for key in ("tokens_per_s", "peak_mib", "process_s")}
        for name, rounds in runs.items()
    }
    peers = [name for name in runs if name != OURS]
    found: dict[str, Any] = {"medians": medians, "runs": runs}
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
        "speed_is_as_wanted": speeds[best] >= WANTED_SPEED[preset],
        "memory_is_as_wanted": memory[best] <= 0.5,
    }


def table(preset: str, result: dict[str, Any]) -> str:
    """Returns the medians as a table in Markdown, and what was wanted."""
    lines = [f"| {preset} | tokens/s | ours over it | peak MiB | ours over it | whole process, s |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for name, row in result["medians"].items():
        speed, memory = (result.get(key, {}).get(name) for key in ("speed_over", "memory_over"))
        ratios = [f"{value:.2f} x" if value else "" for value in (speed, memory)]
        figures = [f"{row['tokens_per_s']:,.0f}", ratios[0], f"{row['peak_mib']:,.0f}", ratios[1]]
        lines.append(f"| {name} | {' | '.join(figures)} | {row['process_s']:.0f} |")
    if "best_peer" in result:
        lines.append(
            f"wanted: {WANTED_SPEED[preset]} x the best peer's speed (found {result['speed_over_best']:.2f}), "
            f"at most 0.5 x its memory (found {result['memory_over_best']:.2f})"
        )
    share = result["overhead"]["overhead"]
    return "\n".join([*lines, f"trainer's overhead: {share:.2%} of a step, wanted below {WANTED_OVERHEAD:.0%}"])


if __name__ == "__main__":
    main()
