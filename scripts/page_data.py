"""Writes the data files of the lesson page, page/data/*.js, from settings, result files and recorded runs.

    python scripts/page_data.py                                    writes all files; a test fails if one is out of date
    python scripts/page_data.py --trim checkpoints_learns/metrics.jsonl page/data/runs/learns.jsonl

--trim keeps only the metrics that the page shows, a few kilobytes; page/README.md has the commands of the three runs.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformer.cli.sampling_settings import unused_settings
from transformer.config import SAMPLING_PRESETS, ModelConfig, OptimizerConfig, SamplingConfig
from transformer.sampling import is_greedy
from transformer.text.corpus import load_shakespeare
from transformer.training.diagnosis import diagnose

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
    parser.add_argument("--trim", nargs=2, type=Path, metavar=("METRICS", "OUT"), help="shorten the metrics of a run")
    options = parser.parse_args()
    if options.trim:
        metrics, out = options.trim
        out.write_text("".join(trimmed(metrics)), encoding="utf-8")
    for path, text in files().items():
        path.write_text(text, encoding="utf-8", newline="\n")


def files() -> dict[Path, str]:
    """Returns the path and the content of each data file."""
    contents = {
        "settings": settings(),
        "accumulation": accumulation(RESULTS / "accumulation.json"),
        "runs": {name: run(DATA / "runs" / f"{name}.jsonl") for name in RUNS},
        "generation": generation(RESULTS / "generation_growth.json"),
        "plays": plays(),
    }
    return {DATA / f"{name}.js": script(name, content) for name, content in contents.items()}


def script(name: str, content: Any) -> str:
    """Returns a script that assigns a value to GPT.data.NAME."""
    parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()] if content else []
    text = "{\n  " + ",\n  ".join(parts) + ",\n}" if parts else "null"
    head = "// Made by scripts/page_data.py.\n\nvar GPT = GPT || {};\nGPT.data = GPT.data || {};\n"
    return f"{head}GPT.data.{name} = {text};\n"


def settings() -> dict[str, Any]:
    """Returns the optimizer defaults and the sampling presets, in the format of page/sampling.js."""
    return {
        "optimizer": asdict(OptimizerConfig()),
        "sampling": {name: sampling(preset) for name, preset in SAMPLING_PRESETS.items()},
    }


def sampling(preset: SamplingConfig) -> dict[str, float]:
    """Returns the settings that a preset uses, by their JavaScript names."""
    used = {"repetitionPenalty": "repetition_penalty", "temperature": "temperature"}
    used |= {"topK": "top_k", "topP": "top_p", "minP": "min_p"}
    idle = unused_settings(preset, used.values())
    found = {name: getattr(preset, setting) for name, setting in used.items() if setting not in idle}
    return found | ({"temperature": 0} if is_greedy(preset) else {})


def accumulation(path: Path) -> dict[str, Any]:
    """Returns the gradient noise and the scores at equal tokens, measured by benchmarks/accumulation.py."""
    measured = json.loads(path.read_text(encoding="utf-8"))
    return {name: measured[name] for name in ("command", "noise", "equal_tokens")}


def run(path: Path) -> dict[str, Any]:
    """Returns the (step, loss) curves of a trimmed run, and the trainer's verdict at each evaluation."""
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
        evaluations = [point for point in validation if point[0] <= step]
        rate = rates[max(at for at in rates if at <= step)]
        found = diagnose(so_far, evaluations, step / start["total_steps"], rate / peak)
        verdicts.append([found.kind, found.reason])
    return {
        "parameters": start["parameters"],
        "steps": start["total_steps"],
        "train": [point[:2] for point in train],
        "validation": [point[:2] for point in validation],
        "verdicts": verdicts,
    }


def trimmed(path: Path) -> Iterator[str]:
    """Yields the lines of metrics.jsonl that the page needs, with rounded numbers."""
    for line in path.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] in KEPT:
            kept = {name: event[name] for name in KEPT[event["event"]]}
            short = {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in kept.items()}
            yield json.dumps(short) + "\n"


def plays() -> dict[str, str]:
    """Returns the texts that the small model of the page learns from: two acts, and one short scene of them."""
    acts = [scene for scene in load_shakespeare() if re.match(r"\s*Romeo and Juliet\nACT II?, SCENE", scene)]
    bodies = [scene.strip().split("\n", 2)[2].strip() for scene in acts]
    short = next(body for body in bodies if "The grey-eyed morn" in body)
    return {"acts": "\n\n".join(bodies) + "\n", "scene": short + "\n"}


def generation(path: Path) -> dict[str, Any] | None:
    """Returns the speeds in a results.json of `main.py benchmark`, or None if the file does not exist."""
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
