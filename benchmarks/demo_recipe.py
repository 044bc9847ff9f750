"""The demo's recipe against the well-known one for a CPU, on the same text: bits per byte and what they cost.

The baseline reads characters: 4 layers of width 128, context 64, 2000 steps of 12 rows from random offsets, AdamW at
1e-3 with a cosine to a tenth. The demo is PRESETS["demo"]. Both train our own model class on the training part of the
bundled plays and are scored on the held-out scenes, in rows of their own context, every token and the mark after each
scene counted. Bits are divided by the scenes' UTF-8 bytes.

    python benchmarks/demo_recipe.py --runs 3                              baseline and demo in turn, three times each
    python benchmarks/demo_recipe.py --set model.position=rotary max_steps=300       the demo, changed: prints a result

Time is measured over the training loop alone: wall seconds, and half the process's CPU seconds: the same on two quiet
cores, and less disturbed by other programs, above all with --threads 1. The second form writes no file.
"""

from __future__ import annotations

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages; torch reads it once, when it is imported

import argparse
import itertools
import json
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from machine import machine
from torch import Tensor

from transformer.config import PRESETS, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from transformer.dataset import PackedBatches, TokenDocuments, Tokens, validation_rows
from transformer.model import DecoderOnlyTransformer
from transformer.optimizer import build_optimizers, set_learning_rate
from transformer.perplexity import evaluate_perplexity
from transformer.scheduler import lr_scale
from transformer.text import load_shakespeare, split_documents, train_bpe
from transformer.training_utils import Objective, accumulate_gradients, clip_gradients

RESULT = Path(__file__).parent / "results" / "demo_recipe.json"
BASELINE = TrainConfig(
    model=ModelConfig(d_model=128, num_heads=4, num_layers=4, d_ff=512, max_seq_len=64, dropout=0.0, bias=False),
    data=DataConfig("shakespeare", "characters", seq_length=64),
    optimizer=OptimizerConfig(learning_rate=1e-3, beta2=0.99, warmup_fraction=0.05),
    batch_size=12, accumulation_steps=1, max_steps=2000,
)  # fmt: skip


class Corpus(NamedTuple):
    """The plays in one encoding: training and held-out scenes as ids, and the held-out text's size in bytes."""

    vocab_size: int
    train: TokenDocuments
    held_out: TokenDocuments
    held_out_bytes: int


def read_corpus(encoding: str) -> Corpus:
    """The plays as "characters" (every one that occurs, and a form feed between scenes) or as "bpeN"."""
    train, held_out = texts = split_documents(load_shakespeare())
    if encoding == "characters":
        ids = {char: i for i, char in enumerate(sorted({"\f"}.union(*train, *held_out)))}
        vocab_size, end = len(ids), ids["\f"]
        coded = [[[ids[char] for char in text] for text in part] for part in texts]
    else:
        tokenizer = train_bpe(train, int(encoding.removeprefix("bpe")))  # the held-out scenes shape no token
        vocab_size, end = tokenizer.vocab_size, tokenizer.eot_id
        coded = [tokenizer.encode_batch(part) for part in texts]
    size = sum(len(text.encode()) for text in held_out)
    return Corpus(vocab_size, TokenDocuments(coded[0], end), TokenDocuments(coded[1], end), size)


def stream(source: TokenDocuments) -> Tokens:
    """All documents in their order, one after another, the end mark after each."""
    return np.concatenate(list(source))


def random_offsets(tokens: Tokens, seq_length: int, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The baseline's batches: rows that start anywhere; inputs and targets (B, T) int64."""
    ids = torch.from_numpy(tokens.astype(np.int64))
    generator = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(ids) - seq_length, (batch_size, 1), generator=generator)  # (B, 1)
        rows = ids[starts + torch.arange(seq_length + 1)]  # (B, T + 1)
        yield rows[:, :-1], rows[:, 1:]


def batches_for(config: TrainConfig, corpus: Corpus) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless micro-batches: random offsets for characters, packed and shuffled rows for the library's encodings."""
    length, batch = config.data.seq_length, config.batch_size
    if config.data.encoding == "characters":
        yield from random_offsets(stream(corpus.train), length, batch, config.seed)
    for inputs, targets, _ in PackedBatches(corpus.train, length, batch, config.seed):
        yield inputs, targets


def train(config: TrainConfig, corpus: Corpus) -> tuple[DecoderOnlyTransformer, dict[str, float]]:
    """Trains a fresh model for max_steps; returns it and the loop's wall_s and cpu_s (all threads' time / 2)."""
    torch.manual_seed(config.seed)
    model = DecoderOnlyTransformer(replace(config.model, vocab_size=corpus.vocab_size))
    objective = Objective(model, end_to_mask(config, corpus))
    optimizers = build_optimizers(model, config.optimizer)
    batches, steps = batches_for(config, corpus), config.max_steps or 1
    batches = itertools.chain([next(batches)], batches)  # cutting the rows is preparation, not training
    wall, cpu = time.perf_counter(), cpu_seconds()
    for step in range(steps):
        micro = list(itertools.islice(batches, config.accumulation_steps))
        set_learning_rate(optimizers, lr_scale(step, steps, config.optimizer))
        accumulate_gradients(objective, micro, config.tokens_per_step)
        clip_gradients(model.parameters(), config.optimizer.grad_clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return model, {"wall_s": time.perf_counter() - wall, "cpu_s": (cpu_seconds() - cpu) / 2}


def end_to_mask(config: TrainConfig, corpus: Corpus) -> int | None:
    """The end mark, if attention is to stop there: in training and in scoring alike."""
    return corpus.train.end_of_text if config.data.mask_documents else None


def cpu_seconds() -> float:
    """What this process has used so far, user and system, all threads together."""
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


def measure(name: str, config: TrainConfig, corpus: Corpus) -> dict[str, Any]:
    """Trains and scores once; returns and prints one row of the result."""
    model, spent = train(config, corpus)
    cut = validation_rows(stream(corpus.held_out), config.data.seq_length, corpus.held_out.end_of_text)
    end = end_to_mask(config, corpus)
    score = evaluate_perplexity(model, *cut, corpus.held_out_bytes, batch_size=64, end_of_text=end)
    row = {"recipe": name, "seed": config.seed, "steps": config.max_steps, **spent}
    row |= {"bits_per_byte": score.bits_per_byte, "parameters": sum(p.numel() for p in model.parameters())}
    print(json.dumps(row), flush=True)
    return row


def changed(config: TrainConfig, settings: Mapping[str, str]) -> TrainConfig:
    """The config with `settings` such as {"model.d_ff": "256"} put in and checked."""
    values = config.to_dict()
    for key, text in settings.items():
        group, _, name = key.rpartition(".")
        value = text if text[:1].isalpha() and text not in ("true", "false", "null") else json.loads(text)
        (values.setdefault(group, {}) if group else values)[name] = value
    return TrainConfig.from_dict(values)


def write(out: Path, rows: list[dict[str, Any]], configs: Mapping[str, TrainConfig]) -> None:
    """Writes everything as JSON, and medians as a table in a .md file beside it."""
    fields = ("wall_s", "cpu_s", "bits_per_byte")
    medians = {n: {f: statistics.median(r[f] for r in rows if r["recipe"] == n) for f in fields} for n in configs}
    command = shlex.join(["python", "benchmarks/demo_recipe.py", *sys.argv[1:]])
    values = {"command": command, "machine": machine(), "medians": medians, "runs": rows}
    values["configs"] = {name: config.to_dict() for name, config in configs.items()}
    out.write_text(json.dumps(values, indent=2) + "\n")
    lines = ["# The demo's recipe and the baseline, the same held-out text", "", f"`{command}`", ""]
    lines += ["| recipe | wall s | CPU s / 2 | bits per byte |", "|---|---|---|---|"]
    lines += [f"| {n} | {m['wall_s']:.1f} | {m['cpu_s']:.1f} | {m['bits_per_byte']:.3f} |" for n, m in medians.items()]
    gain = medians["baseline"]["bits_per_byte"] - medians["demo"]["bits_per_byte"]
    where = ", ".join(f"{key} {value}" for key, value in machine().items())
    lines += ["", f"Medians of {len(rows) // len(configs)} run(s); the demo is {gain:.3f} better. {where}.", ""]
    out.with_suffix(".md").write_text("\n".join(lines))


def main() -> None:
    """Reads the flags and runs one of the two forms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1, help="runs of each recipe (default 1)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first run; it grows by 1 (default 1)")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default 2)")
    parser.add_argument("--set", nargs="+", metavar="KEY=VALUE", help="changes to the demo preset; runs nothing else")
    parser.add_argument("--out", type=Path, default=RESULT, help="result file (default benchmarks/results/...)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    configs = {"baseline": BASELINE, "demo": PRESETS["demo"]}
    if args.set:
        try:
            configs = {"trial": changed(PRESETS["demo"], dict(item.split("=", 1) for item in args.set))}
        except ValueError as error:  # ConfigError is one
            parser.error(str(error))
    corpora = {name: read_corpus(config.data.encoding) for name, config in configs.items()}
    turns = [(name, replace(c, seed=args.seed + run)) for run in range(args.runs) for name, c in configs.items()]
    rows = [measure(name, config, corpora[name]) for name, config in turns]
    if not args.set:
        write(args.out, rows, configs)


if __name__ == "__main__":
    main()
