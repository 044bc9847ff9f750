"""Loss curves of float32 and bfloat16: whole runs on the bundled plays, several seeds in each precision.

    python benchmarks/precision_curves.py                                    half an hour on one core
    python benchmarks/precision_curves.py --recipes demo --seeds 1 --demo-steps 20 --out trial.json

Two recipes: the demo preset as it is, and the model of the quick preset with one micro-batch per step and 100 steps,
so that it takes minutes. Each run is `main.py train` in its own process; the curves come from its metrics.jsonl, and
`main.py evaluate`, which computes in float32, gives the bits per byte of the trained model on held-out scenes.

The spread of a figure is its standard deviation over the seeds: a seed sets initial weights, dropout and the order of
the rows. A difference of the two means counts as "inside" if it is at most the smaller of the two spreads. The same
seed in both precisions reads the same rows, so the largest difference within a seed is reported too.

Speed is not measured, so the machine need not be idle. Runs of another recipe that are already in the result file stay
there, so the two can be run one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import machine, typed_command
from matplotlib.figure import Figure

from transformer.reporting.figures import save_figure

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "precision_curves.json"
PRECISIONS = ("float32", "bfloat16")
RECIPES: dict[str, dict[str, Any]] = {
    "demo": {"preset": "demo", "eval-every": 100},
    "quick": {
        "preset": "quick", "accumulation-steps": 1, "eval-every": 50, "validation-tokens": 10_240,
    },
}  # fmt: skip
EVALUATED = {"demo": [], "quick": ["--max-tokens", "10240", "--stride", "128"]}
LIMIT_S = 3600
"""Most seconds of one process."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--demo-steps", type=int, default=600, help="steps of the demo; fewer for a trial")
    parser.add_argument("--quick-steps", type=int, default=100, help="steps of the quick preset's model")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch threads (default 1)")
    parser.add_argument("--out", type=Path, default=RESULT, help="result file (default: the one in benchmarks/results)")
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {"commands": {}}
    results["machine"] = {**machine(), "threads": options.threads}
    results["runs"] = [run for run in results.get("runs", []) if run["recipe"] not in options.recipes]
    for recipe in options.recipes:
        results["commands"][recipe] = typed_command()
        for seed in options.seeds:
            for precision in PRECISIONS:
                results["runs"].append(run(recipe, precision, seed, options))
                print(json.dumps({k: v for k, v in results["runs"][-1].items() if k != "training"}), flush=True)
                options.out.write_text(as_json(results), encoding="utf-8")
    report(results, options.out)


def report(results: dict[str, Any], out: Path) -> None:
    """Writes the result file, the table and the picture beside it."""
    results["summary"] = {recipe: summary(results["runs"], recipe) for recipe in names(results["runs"], "recipe")}
    out.write_text(as_json(results), encoding="utf-8")
    out.with_suffix(".md").write_text(table(results), encoding="utf-8")
    save_figure(draw(results["runs"]), out.with_suffix(".png"))
    print(table(results))


def run(recipe: str, precision: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Trains once; returns the curves as (step, nats per token), and the bits per byte of the final model."""
    settings = {**RECIPES[recipe], "dataset": "shakespeare", "precision": precision, "seed": seed, "sample-tokens": 0}
    settings["max-steps"] = options.demo_steps if recipe == "demo" else options.quick_steps
    flags = [word for flag, value in settings.items() for word in (f"--{flag}", str(value))]
    with tempfile.TemporaryDirectory() as folder:
        command(options.threads, "train", *flags, "--device", "cpu", "--checkpoint-dir", folder, "--trackers")
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
        (saved,) = Path(folder).glob("model_epoch_*.pt")
        evaluation = ["evaluate", "--checkpoint", str(saved), *EVALUATED[recipe]]
        score = json.loads(command(options.threads, *evaluation, "--json"))
    return {
        "recipe": recipe,
        "precision": precision,
        "seed": seed,
        "command": " ".join(["python main.py train", *flags]),
        "evaluated": " ".join(["python main.py evaluate", *EVALUATED[recipe]]),
        "training": [(line["step"], round(line["loss"], 5)) for line in lines if line["event"] == "step"],
        "validation": [(line["step"], round(line["loss"], 5)) for line in lines if line["event"] == "evaluation"],
        "bits_per_byte": round(score["bits_per_byte"], 5),
    }


def command(threads: int, *words: str) -> str:
    """Runs main.py with these words; returns its standard output."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = [sys.executable, str(ROOT / "main.py"), *words]
    return subprocess.run(
        process, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S
    ).stdout


def summary(runs: list[dict[str, Any]], recipe: str) -> dict[str, Any]:
    """Compares the two precisions: final score, last validation loss, and each logged point of both curves."""
    pairs = {p: [run for run in runs if (run["recipe"], run["precision"]) == (recipe, p)] for p in PRECISIONS}
    ours, theirs = pairs.values()
    found: dict[str, Any] = {"bits_per_byte": compare(*([run["bits_per_byte"] for run in p] for p in (ours, theirs)))}
    found["validation_loss"] = compare(*([run["validation"][-1][1] for run in p] for p in (ours, theirs)))
    for curve in ("training", "validation"):
        points = [compare(*values) for values in zip(by_step(ours, curve), by_step(theirs, curve), strict=True)]
        found[f"{curve}_curve"] = {
            "points": len(points),
            "points_inside": sum(point["is_inside"] for point in points),
            "largest_within_a_seed": max(point["largest_within_a_seed"] for point in points),
        }
    return found


def by_step(runs: list[dict[str, Any]], curve: str) -> list[list[float]]:
    """Returns, for each logged step, the values of all seeds."""
    return [[loss for _, loss in point] for point in zip(*(run[curve] for run in runs), strict=True)]


def compare(first: list[float], second: list[float]) -> dict[str, Any]:
    """Returns means and spreads of float32 and bfloat16, their difference, and whether it is inside the spread."""
    means = [statistics.mean(values) for values in (first, second)]
    spreads = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in (first, second)]
    difference = means[1] - means[0]
    return {
        "means": [round(mean, 5) for mean in means],
        "spreads": [round(spread, 5) for spread in spreads],
        "difference": round(difference, 5),
        "is_inside": abs(difference) <= min(spreads),
        "largest_within_a_seed": round(max(abs(a - b) for a, b in zip(first, second, strict=True)), 5),
    }


def table(results: dict[str, Any]) -> str:
    """Returns the summary as Markdown."""
    runs = results["runs"]
    lines = [
        "# Loss curves in float32 and bfloat16",
        "",
        " and ".join(f"`{line}`" for line in dict.fromkeys(results["commands"].values())),
        "",
    ]
    lines += [
        "Mean ± standard deviation over the seeds; a difference is inside if it is at most the smaller of the two."
    ]
    lines += ["", "| recipe | figure | float32 | bfloat16 | difference | inside | largest within a seed |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for recipe, found in results["summary"].items():
        for name in ("bits_per_byte", "validation_loss"):
            row = found[name]
            values = [f"{mean:.4f} ± {spread:.4f}" for mean, spread in zip(row["means"], row["spreads"], strict=True)]
            inside = "yes" if row["is_inside"] else "no"
            lines.append(
                f"| {recipe} | {name.replace('_', ' ')} | {' | '.join(values)} | {row['difference']:+.4f} | {inside} "
                f"| {row['largest_within_a_seed']:.4f} |"
            )
    lines += [
        "",
        "| recipe | curve | logged points | inside | largest within a seed |",
        "| --- | --- | --- | --- | --- |",
    ]
    for recipe, found in results["summary"].items():
        for curve in ("training", "validation"):
            row = found[f"{curve}_curve"]
            points = f"{row['points']} | {row['points_inside']} | {row['largest_within_a_seed']:.4f}"
            lines.append(f"| {recipe} | {curve} | {points} |")
    where = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines += ["", f"Seeds {', '.join(str(seed) for seed in names(runs, 'seed'))}. {where}.", ""]
    lines += ["The first run of each recipe, and the evaluation of its checkpoint:", ""]
    for recipe in names(runs, "recipe"):
        first = next(run for run in runs if run["recipe"] == recipe)
        lines.append(f"- `{first['command']}`, `{first['evaluated']}`")
    return "\n".join([*lines, ""])


def names(runs: list[dict[str, Any]], key: str) -> list[Any]:
    """Returns the different values of the key, in order."""
    return list(dict.fromkeys(run[key] for run in runs))


def draw(runs: list[dict[str, Any]]) -> Figure:
    """Draws the curves of each recipe: training loss thin, validation loss with dots."""
    recipes = names(runs, "recipe")
    figure = Figure(figsize=(4.5 * len(recipes), 3.2), layout="constrained")
    for axes, recipe in zip(figure.subplots(1, len(recipes), squeeze=False)[0], recipes, strict=True):
        for run in (run for run in runs if run["recipe"] == recipe):
            is_plain = run["precision"] == "float32"
            color, style = ("C0", "-") if is_plain else ("C1", "--")
            name = run["precision"] if run["seed"] == runs[0]["seed"] else None
            axes.plot(*zip(*run["training"], strict=True), color=color, linestyle=style, linewidth=0.7, alpha=0.6)
            axes.plot(*zip(*run["validation"], strict=True), "o" + style, color=color, markersize=3, label=name)
        axes.set(title=f"{recipe}: {len(names(runs, 'seed'))} seeds", xlabel="steps", ylabel="loss (nats per token)")
        axes.legend(title="validation", frameon=False)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def as_json(results: dict[str, Any]) -> str:
    """Returns the results as JSON, the points of a curve on one line."""
    runs = ",\n".join(f"    {json.dumps(run)}" for run in results["runs"])
    rest = {key: value for key, value in results.items() if key != "runs"}
    return json.dumps(rest, indent=2)[:-2] + f',\n  "runs": [\n{runs}\n  ]\n}}\n'


if __name__ == "__main__":
    main()
