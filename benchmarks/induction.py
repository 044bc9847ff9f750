"""Does the preset `induction` form an induction head, and which changes to it prevent that?

    python benchmarks/induction.py                                    about 20 minutes on two cores
    python benchmarks/induction.py --runs "seed 1" --steps 100 --out trial.json

Each run is `main.py train --preset induction` with some flags, in its own process, two at a time. The curves are the
measurements of --watch-inside in its metrics.jsonl: the strongest score of each habit, and the loss on random tokens
repeated once. An induction head counts as formed at the first measurement from which its score stays above 0.5. Of the
pictured run, each head is then replaced by its mean output (interpret/ablation.py), which shows those that the model
needs for learning from the context.

Speed is not measured, so the machine need not be idle. Runs that are already in the result file stay there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from machine import machine, typed_command

from transformer.cli.interpret.rows import habit_rows
from transformer.interpret.ablation import ablate_all, all_parts
from transformer.interpret.in_context import halves
from transformer.reporting.inside_plot import save_inside
from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.training import checkpoint
from transformer.training.events import InsideMetrics

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "induction.json"
PICTURED = "seed 1"
RUNS = {
    "seed 1": [], "seed 2": ["--seed", "2"], "seed 3": ["--seed", "3"],
    "one layer": ["--num-layers", "1"],
    "the plays alone": ["--dataset", "shakespeare"],
}  # fmt: skip
FORMED = 0.5
LIMIT_S = 3600
"""Most seconds of one process."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--steps", type=int, help="steps of each run; fewer for a trial")
    parser.add_argument("--out", type=Path, default=RESULT, help="result file (default: the one in benchmarks/results)")
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {"runs": {}}
    results |= {"command": typed_command(), "machine": {**machine(), "threads": 1}}
    with ThreadPoolExecutor(2) as pool:
        for name, found in zip(options.runs, pool.map(partial(run, options=options), options.runs), strict=True):
            results["runs"][name] = found
            options.out.write_text(as_json(results), encoding="utf-8")
    text = table(results)
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Trains once and returns the curves; draws the pictured run."""
    steps = ["--max-steps", str(options.steps)] if options.steps else []
    with tempfile.TemporaryDirectory() as folder:
        flags = [*RUNS[name], *steps, "--device", "cpu", "--checkpoint-dir", folder, "--trackers"]
        line = [sys.executable, ROOT / "main.py", "train", "--preset", "induction", *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(line, check=True, timeout=LIMIT_S, cwd=ROOT, stdout=subprocess.DEVNULL, env=environment)
        metrics = Path(folder) / METRICS_FILE
        if name == PICTURED:
            save_inside([metrics], options.out.with_suffix(".png"))
        found = curves([event for event in read_metrics(metrics) if isinstance(event, InsideMetrics)])
        return found | ({"without": without_heads(Path(folder))} if name == PICTURED else {})


def without_heads(folder: Path) -> dict[str, Any]:
    """Returns the losses of both halves of repeated random tokens, with all heads and with each head ablated."""
    loaded = checkpoint.load_model(checkpoint.latest(folder))
    rows, _ = habit_rows(loaded.model, loaded.tokenizer, None)
    parts = [part for part in all_parts(loaded.model) if part[1] is not None]
    losses: dict[str, Any] = {}
    for (name, head), found in zip(parts, ablate_all(loaded.model, rows, parts, "mean"), strict=True):
        for label, half in (("none", halves(found.plain)), (f"{name.split('.')[1]}.{head}", halves(found.ablated))):
            losses[label] = [round(half.first, 3), round(half.second, 3)]
    return losses


def curves(inside: list[InsideMetrics]) -> dict[str, Any]:
    """Returns the curves of a run; the strongest heads as [score, layer, head]."""
    return {
        "even": inside[-1].even,
        "seconds": round(sum(found.seconds for found in inside), 2),
        "step": [found.step for found in inside],
        "first_loss": [round(found.first_loss, 4) for found in inside],
        "second_loss": [round(found.second_loss, 4) for found in inside],
        "strongest": {name: [found.strongest(name) for found in inside] for name in inside[0].scores},
    }


def formed(curve: dict[str, Any]) -> int | None:
    """Returns the first step from which on the induction score stays above FORMED, or None."""
    first = None
    for step, (score, _, _) in zip(reversed(curve["step"]), reversed(curve["strongest"]["induction"]), strict=True):
        if score <= FORMED:
            break
        first = step
    return first


def table(results: dict[str, Any]) -> str:
    """Returns the summary of all runs in Markdown."""
    rows = [row(name, curve) for name, curve in results["runs"].items()]
    without = results["runs"].get(PICTURED, {}).get("without", {})
    return f"""# The preset `induction`

`{results["command"]}`, on {results["machine"]["processor"]}, one thread each. Scores are the strongest head's at the
end; even is the score of a head that attends to all tokens evenly. Losses are in nats per token on random tokens
repeated once, at the end. Formed: the first step from which the induction score stays above {FORMED}.

| run | flags | previous token | induction | even | formed at step | loss, first half | second half |
| --- | --- | --- | --- | --- | --- | --- | --- |
{"".join(rows)}
Losses of {PICTURED} in both halves with one head replaced by its mean output:

| head | {" | ".join(without)} |
| --- |{" --- |" * len(without)}
| first half | {" | ".join(f"{first:.2f}" for first, _ in without.values())} |
| second half | {" | ".join(f"{second:.2f}" for _, second in without.values())} |

![The curves of {PICTURED}](induction.png)
"""


def row(name: str, curve: dict[str, Any]) -> str:
    """Returns a line of the table."""
    heads = [curve["strongest"][habit][-1] for habit in ("previous token", "induction")]
    scores = " | ".join(f"{score:.2f} in head {layer}.{head}" for score, layer, head in heads)
    flags = f"`{' '.join(RUNS[name])}`" if RUNS[name] else ""
    step = formed(curve) or f"not in {curve['step'][-1]:,}"
    losses = f"{curve['first_loss'][-1]:.2f} | {curve['second_loss'][-1]:.2f}"
    return f"| {name} | {flags} | {scores} | {curve['even']['induction']:.2f} | {step} | {losses} |\n"


def as_json(results: dict[str, Any]) -> str:
    """Returns the results with each list of a curve on one line."""
    text = json.dumps(results, indent=1)
    return re.sub(r"\[[^\[\]{}]*(?:\[[^\[\]]*\][^\[\]]*)*\]", lambda found: re.sub(r"\s+", " ", found[0]), text) + "\n"


if __name__ == "__main__":
    main()
