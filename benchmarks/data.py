"""The data path: time to the first batch, tokens per second from text and from stored ids, memory; two baselines.

    uv run --with datasets python benchmarks/data.py               three rounds, about ten minutes on two cores
    uv run --with datasets python benchmarks/data.py --rounds 1 --repeat 4

A local stand-in for the hub serves FineWeb-shaped files made of the bundled plays. It is a separate process and uses
the same cores. Each contender is a new process that reads all of the training text once, as rows of 128 cl100k_base
tokens in batches of 8:

    ours, first batch    an empty cache and the default settings, including their 200,000 tokens of validation text
    ours, from text      an empty cache: download, split, tokenize, store, pack
    ours, from ids       the same again, from the token files that the first pass stored
    plain loop           `datasets` streams the same files from the same hub; tiktoken; rows are cut from one list
    tiktoken alone       only encodes texts in memory, on all cores: the upper limit for any path from text

Tokens per second exclude the time to open the dataset, which is reported separately.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from machine import machine, peak_bytes, typed_command

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "data.json"
CONTENDERS = ("ours, first batch", "ours, from text", "ours, from ids", "plain loop", "tiktoken alone")
SEQ_LENGTH, BATCH_SIZE, ROW_GROUP = 128, 8, 700
TOKENS_PER_COPY = 1.37e6  # nearly all tokens of the plays, so that the timing includes all tokenization ahead of time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=24, help="copies of the 5 MB of text")
    parser.add_argument("--worker", nargs=2, metavar=("CONTENDER", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(WORKERS[options.worker[0]](Path(options.worker[1]), options.repeat)))
        return
    spawn_hub = stand_in_hub().spawn_hub
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    serving = ("--repeat", str(options.repeat), "--row-group-size", str(ROW_GROUP), "--file-count", "4")
    for number in range(options.rounds):
        with spawn_hub(*serving) as url, tempfile.TemporaryDirectory() as folder:
            for name in CONTENDERS:
                runs[name].append(run_worker(name, folder, url, options.repeat))
                print(f"round {number + 1}, {name}: {runs[name][-1]}", flush=True)
    results = {
        "command": typed_command(),
        "machine": machine("tiktoken", "pyarrow", "huggingface-hub", "datasets"),
        "contenders": summary(runs),
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(table(results["contenders"]))


def stand_in_hub() -> ModuleType:
    """Imports tests/support/stand_in_hub.py, which is not part of a package."""
    path = ROOT / "tests" / "support" / "stand_in_hub.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_worker(name: str, folder: str, url: str, repeat: int) -> dict[str, float]:
    """Measures one contender in a new process, with empty caches of the hub library."""
    command = [sys.executable, __file__, "--worker", name, folder, "--repeat", str(repeat)]
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": f"{folder}/hf", "TOKENIZERS_PARALLELISM": "false"}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**figures, "process_s": round(time.perf_counter() - started, 2)}


def ours(folder: Path, repeat: int) -> dict[str, float]:
    """Reads the project's data path, with nearly all documents in the training part, as for the other contenders."""
    steps = int(TOKENS_PER_COPY * repeat) // (SEQ_LENGTH * BATCH_SIZE)
    return read(folder / "cache", steps, validation_fraction=0.001, validation_tokens=1_000)


def first_batch(folder: Path, repeat: int) -> dict[str, float]:
    """Reads the first batch of a training run, with the default validation text."""
    return read(folder / "cache_first", 0)


def read(cache: Path, more_batches: int, **settings: Any) -> dict[str, float]:
    """Reads a first batch, and `more_batches` after it, through the cache."""
    import torch  # noqa: F401  imported here, so that the timing excludes it

    from transformer.config import DataConfig
    from transformer.data.open import open_dataset
    from transformer.dataset import PackedBatches

    started = time.perf_counter()
    config = DataConfig(cache_dir=str(cache), shard_mb=8, cache_shards=50, **settings)
    with contextlib.closing(open_dataset(config)) as data:
        opened = time.perf_counter() - started
        batches = iter(PackedBatches(data.train, SEQ_LENGTH, BATCH_SIZE, seed=1))
        next(batches)
        first = time.perf_counter() - started
        tokens = sum(inputs.numel() for inputs, _, _ in islice(batches, more_batches)) + SEQ_LENGTH * BATCH_SIZE
        seconds = time.perf_counter() - started
    return figures(tokens, seconds, opened, first)


def plain_loop(folder: Path, repeat: int) -> dict[str, float]:
    """Reads with the datasets library and tiktoken, in a loop as one would write it by hand."""
    import torch
    from datasets import load_dataset

    from transformer.text import load_tokenizer

    encoding = load_tokenizer("cl100k_base").encoding  # type: ignore[attr-defined]
    started = time.perf_counter()
    files = "hf://datasets/HuggingFaceFW/fineweb-edu/sample/10BT/*.parquet"
    texts = load_dataset("parquet", data_files=files, split="train", streaming=True).select_columns(["text"])
    opened = time.perf_counter() - started
    first, tokens = 0.0, 0
    buffer: list[int] = []
    size = SEQ_LENGTH * BATCH_SIZE + 1
    for row in texts:
        buffer += encoding.encode_ordinary(row["text"])
        buffer.append(encoding.eot_token)
        while len(buffer) >= size:
            batch = torch.tensor(buffer[:size])
            inputs, targets = batch[:-1].view(BATCH_SIZE, SEQ_LENGTH), batch[1:].view(BATCH_SIZE, SEQ_LENGTH)
            del buffer[: size - 1]
            first = first or time.perf_counter() - started
            tokens += inputs.numel()
            assert targets.shape == inputs.shape
    return figures(tokens, time.perf_counter() - started, opened, first)


def tiktoken_alone(folder: Path, repeat: int) -> dict[str, float]:
    """Only encodes: the batch function of tiktoken on all cores."""
    from transformer.text import load_shakespeare, load_tokenizer
    from transformer.text.cores import usable_cores

    encoding = load_tokenizer("cl100k_base").encoding  # type: ignore[attr-defined]
    texts = load_shakespeare()
    started = time.perf_counter()
    tokens = 0
    for _ in range(repeat):
        encoded = encoding.encode_ordinary_batch(texts, num_threads=usable_cores())
        tokens += sum(map(len, encoded))
    return figures(tokens, time.perf_counter() - started, 0.0, 0.0)


def figures(tokens: int, seconds: float, opened: float, first: float) -> dict[str, float]:
    return {
        "tokens": tokens,
        "tokens_per_s": round(tokens / (seconds - opened)),
        "opened_s": round(opened, 3),
        "first_batch_s": round(first, 3),
        "peak_mib": round(peak_bytes() / 2**20),
    }


WORKERS = {
    "ours, first batch": first_batch,
    "ours, from text": ours,
    "ours, from ids": ours,
    "plain loop": plain_loop,
    "tiktoken alone": tiktoken_alone,
}


def summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Returns medians for each contender, and the median over rounds of its speed relative to both baselines."""
    found: dict[str, Any] = {}
    for name, rounds in runs.items():
        row: dict[str, Any] = {key: statistics.median(run[key] for run in rounds) for key in rounds[0]}
        for peer in ("plain loop", "tiktoken alone"):
            pairs = zip(rounds, runs[peer], strict=True)
            ratio = statistics.median(mine["tokens_per_s"] / its["tokens_per_s"] for mine, its in pairs)
            row[f"against {peer}"] = round(ratio, 2)
        found[name] = {**row, "runs": rounds}
    return found


def table(contenders: dict[str, Any]) -> str:
    """Returns the medians as a Markdown table."""
    lines = ["| path | tokens/s | against the plain loop | against tiktoken | first batch, s | peak MiB |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name, row in contenders.items():
        ratios = f"{row['against plain loop']:.2f} x | {row['against tiktoken alone']:.2f} x"
        lines.append(f"| {name} | {row['tokens_per_s']:,} | {ratios} | {row['first_batch_s']} | {row['peak_mib']:,} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
