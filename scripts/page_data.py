"""Writes the lesson page's data, page/data/*.js, from this project's settings, result files and recorded runs.

    python scripts/page_data.py                                    writes them anew; tests/page compares
    python scripts/page_data.py --trim checkpoints_learns/metrics.jsonl page/data/runs/learns.jsonl

--trim keeps of a run's metrics what the page shows, a few kilobytes; page/README.md has the commands of the three runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformer.config import SAMPLING_PRESETS, ModelConfig, OptimizerConfig, SamplingConfig
from transformer.sampling import is_greedy, unused
from transformer.training.diagnosis import verdict

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "page" / "data"
RESULTS = ROOT / "benchmarks" / "results"
RUNS = ("learns", "underfits", "overfits")
KEPT = {
    "start": ("event", "total_steps", "parameters"),
    "step": ("event", "step", "loss", "learning_rate", "tokens"),
    "evaluation": ("event", "step", "loss", "loss_error"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trim", nargs=2, type=Path, metavar=("METRICS", "OUT"), help="cut a run's metrics down")
    options = parser.parse_args()
    if options.trim:
        metrics, out = options.trim
        out.write_text("".join(trimmed(metrics)), encoding="utf-8")
    for path, text in files().items():
        path.write_text(text, encoding="utf-8", newline="\n")


def files() -> dict[Path, str]:
    """Returns the content of every file in page/data that is made here."""
    contents = {
        "settings": settings(),
        "accumulation": accumulation(RESULTS / "accumulation.json"),
        "runs": {name: run(DATA / "runs" / f"{name}.jsonl") for name in RUNS},
        "generation": generation(RESULTS / "generation_growth.json"),
    }
    return {DATA / f"{name}.js": script(name, content) for name, content in contents.items()}


def script(name: str, content: Any) -> str:
    """Returns a value as a script: GPT.data.NAME."""
    parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()] if content else []
    text = "{\n  " + ",\n  ".join(parts) + ",\n}" if parts else "null"
    head = "// Made by scripts/page_data.py.\n\nvar GPT = GPT || {};\nGPT.data = GPT.data || {};\n"
    return f"{head}GPT.data.{name} = {text};\n"


def settings() -> dict[str, Any]:
    """Returns the defaults of the schedule and the named ways to sample, as page/sampling.js takes them."""
    return {
        "optimizer": asdict(OptimizerConfig()),
        "sampling": {name: sampling(preset) for name, preset in SAMPLING_PRESETS.items()},
    }


def sampling(preset: SamplingConfig) -> dict[str, float]:
    """Returns what a preset changes, in JavaScript's names; what it does not use is left out."""
    used = {"repetitionPenalty": "repetition_penalty", "temperature": "temperature"}
    used |= {"topK": "top_k", "topP": "top_p", "minP": "min_p"}
    idle = unused(preset, used.values())
    found = {name: getattr(preset, setting) for name, setting in used.items() if setting not in idle}
    return found | ({"temperature": 0} if is_greedy(preset) else {})


def accumulation(path: Path) -> dict[str, Any]:
    """Returns the measured gradient noise, and the scores at equal tokens, of benchmarks/accumulation.py."""
    measured = json.loads(path.read_text(encoding="utf-8"))
    return {name: measured[name] for name in ("command", "noise", "equal_tokens")}


def run(path: Path) -> dict[str, Any]:
    """Returns the curves of a trimmed run, (step, loss) each, and the project's verdict at every look at validation."""
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    start = events[0]
    steps = [e for e in events if e["event"] == "step"]
    seen = [0, *(e["tokens"] for e in steps)]
    train = [(e["step"], e["loss"], e["tokens"] - before) for e, before in zip(steps, seen[:-1], strict=True)]
    validation = [(e["step"], e["loss"], e["loss_error"]) for e in events if e["event"] == "evaluation"]
    rates = {e["step"]: e["learning_rate"] for e in steps}
    peak, verdicts = max(rates.values()), []
    for step, _, _ in validation:
        so_far = [point for point in train if point[0] <= step]
        looks = [look for look in validation if look[0] <= step]
        rate = rates[max(at for at in rates if at <= step)]
        told = verdict(so_far, looks, step / start["total_steps"], rate / peak)
        verdicts.append([told.kind, told.reason])
    return {
        "parameters": start["parameters"],
        "steps": start["total_steps"],
        "train": [point[:2] for point in train],
        "validation": [look[:2] for look in validation],
        "verdicts": verdicts,
    }


def trimmed(path: Path) -> Iterator[str]:
    """Yields the lines of metrics.jsonl that the page needs, shortened."""
    for line in path.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] in KEPT:
            kept = {name: event[name] for name in KEPT[event["event"]]}
            short = {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in kept.items()}
            yield json.dumps(short) + "\n"


def generation(path: Path) -> dict[str, Any] | None:
    """Returns the measured speeds of `main.py benchmark`, from its results.json; None where there is none yet."""
    if not path.exists():
        return None
    measured = json.loads(path.read_text(encoding="utf-8"))
    config = ModelConfig.from_dict(measured["config"])
    points = [
        {
            "length": row["length"],
            "cached": row["cached"]["tokens_per_second"],
            "uncached": row["uncached"]["tokens_per_second"],
            "speedup": row["speedup"],
            "cache_bytes": row["cache_bytes"],
        }
        for row in measured["results"]
    ]
    shape = {"layers": config.num_layers, "width": config.d_model, "context": config.max_seq_len}
    about = {name: measured[name] for name in ("command", "model", "device", "threads", "torch", "prompt_tokens")}
    return {**about, **shape, "points": points}


if __name__ == "__main__":
    main()
