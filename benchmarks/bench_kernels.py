"""Is the table of routines right for this processor? Times all candidates of each kernel, and fails if it is not.

    make bench-kernels                                    a few minutes on an otherwise idle machine
    python benchmarks/bench_kernels.py --quick            small shapes, for a trial: no file, and no verdict counts
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/bench_kernels.py --kind amd-avx2

The last line judges the row of another processor: the libraries then use fewer instructions than this one has.
src/transformer/processor.py chooses by the kind of the processor. For each of its choices, the candidates are measured
here at the shapes of the documentation: the products of a decode step, at the default shape and at SmolLM2-135M's; the
loss; a micro-batch in float32 and bfloat16. Attention of one query and other formats of the weights are measured for
information. Each candidate is first compared with the plain one; a wrong result is a failure.

The candidates of a case run in turn, in one process, in alternating order; the time is the median. The last-level cache
is overwritten before each, as a decode step reads weights that are not in it. A time of a step is the sum over its
products, so each shape counts as often as it occurs. Where one choice serves several cases, the geometric mean of their
times counts. The exit status is 1 if a choice is more than 10 % slower than its best candidate.
"""

from __future__ import annotations

import os

from transformer.cli.waiting import waiting

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages, as in main.py; PyTorch reads it when it is imported
os.environ.update(waiting(os.environ))  # threads that wait for each other: also as in main.py

import argparse
import gc
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from kernel_candidates import Case, Parts, all_cases
from machine import machine, result_file, typed_command

from transformer.processor import TABLE, choices, processor

LIMIT = 1.10
"""Most time of a choice, relative to its best candidate."""
SETTINGS = ("THP_MEM_ALLOC_ENABLE", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
EMULATION = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
"""Variables that make the libraries use fewer instructions than the processor has."""
LEAST_ROUNDS, MOST_ROUNDS = 5, 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=list(TABLE), help="row of the table to judge (default: this processor's)")
    parser.add_argument("--only", default="", help="only cases with this in their name or decision, such as loss")
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each case, at least five rounds")
    parser.add_argument("--threads", type=int, help="PyTorch threads (default: PyTorch's default)")
    parser.add_argument(
        "--quick", action="store_true", help="small shapes, one round: only checks that the script works"
    )
    parser.add_argument("--out", type=Path, help="result file (default results/kernels_KIND.json; none with --quick)")
    options = parser.parse_args()
    emulated = {name: os.environ[name] for name in EMULATION if name in os.environ}
    if emulated and not options.kind:
        parser.error(f"{', '.join(emulated)} is set: give the --kind of processor that it emulates")
    if options.threads:
        torch.set_num_threads(options.threads)
    kind = options.kind or processor().kind
    row = choices(kind)
    results: dict[str, Any] = {"command": typed_command(), "kind": kind, "emulated_by": emulated}
    settings = {name: os.environ[name] for name in SETTINGS if name in os.environ}
    results |= {"machine": machine() | settings, "table": asdict(row), "decisions": {}, "cases": []}
    for case in all_cases(row, options.quick):
        if options.only in case.name or options.only in case.decision:
            results["cases"].append(measure(case, options))
            print(line(results["cases"][-1]), flush=True)
        del case  # and its weights
    results["decisions"] = decisions(results["cases"])
    out = options.out or (None if options.quick else result_file("kernels", kind))
    if out:
        out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return report(results, options.quick)


@torch.no_grad()
def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Checks and times all candidates; returns medians in milliseconds, and what was wrong or impossible."""
    ready, left_out, wrong = prepare(case)
    flush = torch.ones(4096 if options.quick else 2 * last_level_bytes() // 4)
    spent: dict[str, list[dict[str, float]]] = {name: [] for name in ready}
    started = time.perf_counter()
    for number in range(1 if options.quick else MOST_ROUNDS):
        for name in list(ready)[:: 1 if number % 2 else -1]:
            flush.sum()
            spent[name].append(seconds(ready[name]))
        if number + 1 >= LEAST_ROUNDS and time.perf_counter() - started > options.seconds:
            break
    totals = {name: statistics.median(sum(one.values()) for one in rounds) for name, rounds in spent.items()}
    best = min(totals, key=lambda name: totals[name])
    single = {
        name: {part: round(statistics.median(one[part] for one in rounds) * 1e3, 4) for part in rounds[0]}
        for name, rounds in spent.items()
    }
    return {
        "case": case.name, "decision": case.decision, "choice": case.choice, "best": best, "rounds": number + 1,
        "median_ms": {name: round(total * 1e3, 4) for name, total in totals.items()}, "parts_ms": single,
        "left_out": left_out, "wrong": wrong,
    }  # fmt: skip


def prepare(case: Case) -> tuple[dict[str, Parts], dict[str, str], dict[str, float]]:
    """Returns the candidates that work here, errors of the others, and the differences that are too large."""
    ready: dict[str, Parts] = {}
    left_out, wrong = {}, {}
    for name, build in case.candidates.items():
        try:
            parts = build()
            plain = next(iter(ready.values()), parts)
            worst = max(difference(ours, theirs) for ours, theirs in zip(results(parts), results(plain), strict=True))
        except (RuntimeError, AttributeError) as error:  # an operation that this build or processor lacks
            left_out[name] = " ".join(str(error).split())[:200]
            continue
        if worst <= case.tolerance(name):
            ready[name] = parts
        else:
            wrong[name] = worst
    gc.collect()
    return ready, left_out, wrong


def results(parts: Parts) -> Iterator[Any]:
    """Computes each part in turn."""
    return (compute() for _, compute in parts)


def difference(ours: Any, theirs: Any) -> float:
    """Returns the largest difference of two tensors, or of two tuples of tensors, relative to the largest number."""
    if isinstance(ours, tuple):
        return max(difference(a, b) for a, b in zip(ours, theirs, strict=True))
    return float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())


def seconds(parts: Parts) -> dict[str, float]:
    """Runs a candidate once; returns the seconds by the name of its parts."""
    spent: dict[str, float] = {}
    for name, compute in parts:
        started = time.perf_counter()
        compute()
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - started
    return spent


def last_level_bytes() -> int:
    """Returns the size of the largest cache of the first core; 64 MiB where the system does not say."""
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    known = [int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20}[size[-1]] for size in sizes if size[-1:] in ("K", "M")]
    return max(known, default=64 << 20)


def decisions(cases: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns, for each choice of the table, the geometric mean of each candidate's milliseconds, and the verdict."""
    found: dict[str, dict[str, Any]] = {}
    for decision in dict.fromkeys(case["decision"] for case in cases if case["decision"]):
        own = [case for case in cases if case["decision"] == decision]
        names = [name for name in own[0]["median_ms"] if all(name in case["median_ms"] for case in own)]
        times = {name: math.exp(statistics.fmean(math.log(case["median_ms"][name]) for case in own)) for name in names}
        choice, best = own[0]["choice"], min(times, key=lambda name: times[name])
        over = times[choice] / times[best] if choice in times else math.inf
        found[decision] = {
            "choice": choice, "best": best, "choice_over_best": round(over, 3), "is_right": over <= LIMIT,
            "mean_ms": {name: round(milliseconds, 4) for name, milliseconds in times.items()},
        }  # fmt: skip
    return found


def line(case: dict[str, Any]) -> str:
    """Returns a case as one line: milliseconds, the choice in brackets, the best with a star."""
    shown = []
    for name, milliseconds in case["median_ms"].items():
        label = f"[{name}]" if name == case["choice"] else name
        shown.append(f"{label} {milliseconds:,.3f}{'*' if name == case['best'] else ''}")
    shown += [f"{name} LEFT OUT: {error}" for name, error in case["left_out"].items()]
    shown += [f"{name} IS WRONG by {difference:.1e}" for name, difference in case["wrong"].items()]
    return f"{case['case']:<32} ms: {', '.join(shown)}"


def report(results: dict[str, Any], quick: bool) -> int:
    """Prints the verdict on each choice; returns the exit status."""
    where, failed = results["kind"] + (", emulated" if results["emulated_by"] else ""), False
    print(f"\n| choice for {where} | chosen | best | time of the choice / best | verdict |\n{'| --- ' * 5}|")
    for name, one in results["decisions"].items():
        verdict = "right" if one["is_right"] else f"more than {LIMIT - 1:.0%} slower"
        failed |= not one["is_right"] and not quick
        print(f"| {name} | {one['choice']} | {one['best']} | {one['choice_over_best']:.2f} | {verdict} |")
    wrong = [f"{case['case']}: {', '.join(case['wrong'])}" for case in results["cases"] if case["wrong"]]
    for text in wrong:
        print(f"not equal to the plain result: {text}")
    if quick:
        print("a trial: small shapes and one round, so no verdict counts")
    return int(failed or bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
