"""Generation with the key-value cache: ours, transformers' GPT-2 and litgpt, and the limit set by memory bandwidth.

    python benchmarks/generation.py                     five rounds of all, on an otherwise idle machine
    python benchmarks/generation.py --quick             a tiny model, one round: only checks that the script works
    python benchmarks/generation.py --rounds 1 --new-tokens 100 --contenders ours transformers
    python benchmarks/generation.py --model smollm2     the shape of SmolLM2-135M, against transformers' Llama

The model is the default one with a context of 1,024: vocabulary 100,277, width 256, 6 layers of 4 heads, float32. Each
contender generates greedily from the same prompt of 8 tokens, for one text and for a batch, and never stops early.
transformers has our weights, so its tokens are compared with ours. litgpt only has rotary positions, so it has other
weights. Each contender calls the function of its own library, with its cache: `generate_batch` of inference/batch.py,
`model.generate` of transformers, `litgpt.generate.base.generate` (for a batch, `batched_generate_fn`).

A round runs each contender once, in a new process; the order rotates by one from round to round. Results are medians
over the rounds; ratios are computed within a round. Tokens per second are new tokens divided by the time of the whole
call, prompt included, after an untimed short text. Peak memory is the largest resident size of the process after its
longest single text. Ours has the environment that main.py sets for itself: THP_MEM_ALLOC_ENABLE=1, and beside other
programs OMP_WAIT_POLICY (cli/waiting.py). The peers run without it, with it ("tuned"), and with it in bfloat16.

Each new token requires reading each weight matrix once, one row of each embedding table, and all keys and values so
far. Every round measures the memory bandwidth in several ways on the same 256 MiB. The best result gives the number of
tokens per second that memory allows, and `share` is a contender's fraction of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from generation_summary import OURS, Runs, report, summary
from machine import result_file, typed_command
from training_end_to_end import TUNED, environment, litgpt_python, watch

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = ("ours", "transformers", "litgpt")
PROMPT_TOKENS = 8
SAMPLED = ("balanced", "creative")
"""Sampling presets whose cost is measured, in addition to greedy."""
CONTEXT, QUICK_CONTEXT = 1024, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument("--new-tokens", type=int, nargs="+", help="default 100 500 900")
    parser.add_argument("--batch", type=int, default=8, help="batch size, for the middle length")
    parser.add_argument("--contenders", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--model", choices=("default", "smollm2"), default="default", help="shape of the model")
    parser.add_argument("--quick", action="store_true", help="tiny model, one round; writes a file only with --out")
    parser.add_argument("--threads", type=int, help="threads of each contender (default: PyTorch's default)")
    parser.add_argument(
        "--litgpt", type=Path, metavar="PYTHON", help="a Python interpreter with litgpt and the same torch"
    )
    parser.add_argument("--out", type=Path, help="result file (default results/generation_KIND.json)")
    options = parser.parse_args()
    if options.rounds is None:
        options.rounds = 1 if options.quick else 5
    options.new_tokens = sorted(set(options.new_tokens or ([5, 10, 20] if options.quick else [100, 500, 900])))
    options.out = options.out or (
        None
        if options.quick
        else result_file("generation" if options.model == "default" else f"generation_{options.model}")
    )
    if min(options.rounds, options.batch, *options.new_tokens) < 1:
        parser.error("--rounds, --batch and --new-tokens must be at least 1")
    if (longest := options.new_tokens[-1]) + PROMPT_TOKENS > (context := QUICK_CONTEXT if options.quick else CONTEXT):
        parser.error(
            f"--new-tokens {longest}: at most {context - PROMPT_TOKENS}, because the context is {context} tokens"
        )
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Runs all rounds; writes the results so far to the result file after each."""
    context = QUICK_CONTEXT if options.quick else CONTEXT
    wanted = {"quick": options.quick, "model": options.model, "max_seq_len": context}
    prepared = part("prepare", wanted, options, folder)
    fixed = {"shape": prepared["shape"], "prompt_tokens": PROMPT_TOKENS, "torch": prepared["machine"]["torch"]}
    families = [name for name in options.contenders if options.model == "default" or name != "litgpt"]
    contenders = [one for one in all_contenders(prepared) if one["peer"] in families]
    runs: Runs = {}
    longest: dict[str, list[int]] = {}  # contender -> its longest single text
    bandwidth: list[dict[str, float]] = []
    for number in range(options.rounds):
        bandwidth.append(part("bandwidth", {"mib": 16 if options.quick else 256}, options, folder))
        first = number % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            name, texts = contender["name"], texts_of(contender, options)
            rows = part("write", {**contender, **fixed, "texts": list(texts.values())}, options, folder)
            for (key, text), row in zip(texts.items(), rows, strict=True):
                speed = text["batch"] * text["new_tokens"] / row["seconds"]
                kept = {"tokens_per_s": round(speed, 2), "peak_mib": round(row["peak_bytes"] / 2**20)}
                runs.setdefault(key, {}).setdefault(name, []).append(kept)
                if key == str(options.new_tokens[-1]):
                    longest[name] = row["ids"][0]
            shown = ", ".join(f"{key}: {runs[key][name][-1]['tokens_per_s']:,}" for key in texts)
            print(f"round {number + 1}, {name}, tokens/s: {shown}", flush=True)
        results = {
            "command": typed_command(), "threads": options.threads, "prompt_tokens": PROMPT_TOKENS, **prepared,
            **summary(prepared, PROMPT_TOKENS, runs, longest, bandwidth), "runs": runs,
        }  # fmt: skip
        if options.quick or options.model != "default":
            results["goals"] = {}  # they apply to the default model
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
            options.out.with_suffix(".md").write_text(report(results), encoding="utf-8")
    print(report(results))


def all_contenders(prepared: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns name and settings of each contender. generation_contenders.py defines our variants."""
    ours = [
        {"name": f"ours, {variant}", "peer": "ours", "variant": variant, "use_cache": True, "is_tuned": True}
        for variant in prepared["variants"]
    ]
    no_cache = {**ours[0], "name": "ours, no cache", "use_cache": False}
    peers = [
        {"name": peer + end, "peer": peer, "precision": precision, "use_cache": True, "is_tuned": bool(end)}
        for peer in FAMILIES[1:]
        for precision, end in (("float32", ""), ("float32", TUNED), ("bfloat16", f", bfloat16{TUNED}"))
    ]
    return [*ours, no_cache, *peers]


def texts_of(contender: dict[str, Any], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Returns the texts a contender generates, by name: one of each length, then sampled ones, then a batch.

    Without the cache, it is only the longest text.
    """
    lengths = options.new_tokens if contender["use_cache"] else options.new_tokens[-1:]
    texts = {str(length): {"batch": 1, "new_tokens": length, "sampling": "greedy"} for length in lengths}
    middle = options.new_tokens[len(options.new_tokens) // 2]
    if contender["name"] == OURS or contender["peer"] == "transformers":
        for sampling in SAMPLED:
            texts[f"{middle}, {sampling}"] = {"batch": 1, "new_tokens": middle, "sampling": sampling}
    if contender["use_cache"]:
        texts[f"{middle}, batch {options.batch}"] = {"batch": options.batch, "new_tokens": middle, "sampling": "greedy"}
    return texts


def part(name: str, settings: dict[str, Any], options: argparse.Namespace, folder: Path) -> Any:
    """Runs a part of generation_contenders.py in a new process; returns its result."""
    is_litgpt = settings.get("peer") == "litgpt"
    python = litgpt_python(options.litgpt, settings["torch"]) if is_litgpt else [sys.executable]
    command = [*python, str(ROOT / "benchmarks" / "generation_contenders.py"), name, json.dumps(settings)]
    shown, _ = watch(command, environment(options.threads, settings.get("is_tuned", True)), folder)
    return json.loads(shown.splitlines()[-1])


if __name__ == "__main__":
    main()
