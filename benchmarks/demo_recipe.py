"""Trials of the demo's recipe: the effect of a changed setting on bits per byte of the held-out scenes, and its cost.

    python benchmarks/demo_recipe.py --set model.position=rotary max_steps=300          one trial: prints the result
    python benchmarks/demo_recipe.py                                                    the unchanged demo

The script trains PRESETS["demo"], with the changes, on the training part of the bundled plays. It evaluates the
held-out scenes in rows of the model's context length, including the end-of-text token after each scene; bits are
divided by the UTF-8 bytes of the scenes. results/demo_experiments.md collects such trials. The script writes no file.
accumulation.py and time_to_quality.py use its functions for training.

Only the training loop is timed: wall-clock seconds, and half of the CPU seconds of the process. Both are equal on two
idle cores; CPU seconds are less affected by other programs, especially with --threads 1.
"""

from __future__ import annotations

import os

os.environ.setdefault(
    "THP_MEM_ALLOC_ENABLE", "1"
)  # huge pages, as in main.py; PyTorch reads it at its first allocation

import argparse
import itertools
import json
import resource
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from transformer.config import TrainConfig
from transformer.dataset import PackedBatches, TokenDocuments, validation_rows
from transformer.kernels import accelerate
from transformer.model import DecoderOnlyTransformer
from transformer.optimizer import build_optimizers, set_learning_rate
from transformer.perplexity import evaluate_perplexity
from transformer.presets import PRESETS
from transformer.scheduler import lr_scale
from transformer.text import Tokens, load_shakespeare, split_documents, train_bpe
from transformer.training_utils import Objective, accumulate_gradients, clip_gradients


class Corpus(NamedTuple):
    """The plays in one encoding: training and held-out scenes as ids, and the bytes of the held-out text."""

    vocab_size: int
    train: TokenDocuments
    held_out: TokenDocuments
    held_out_bytes: int


def read_corpus(encoding: str) -> Corpus:
    """Returns the plays as "characters" (all that occur, and a form feed between scenes) or as "bpeN"."""
    train, held_out = texts = split_documents(load_shakespeare())
    if encoding == "characters":
        ids = {char: i for i, char in enumerate(sorted({"\f"}.union(*train, *held_out)))}
        vocab_size, end = len(ids), ids["\f"]
        coded = [[[ids[char] for char in text] for text in part] for part in texts]
    else:
        tokenizer = train_bpe(train, int(encoding.removeprefix("bpe")))  # trained without the held-out scenes
        vocab_size, end = tokenizer.vocab_size, tokenizer.eot_id
        coded = [tokenizer.encode_batch(part) for part in texts]
    size = sum(len(text.encode()) for text in held_out)
    return Corpus(vocab_size, TokenDocuments(coded[0], end), TokenDocuments(coded[1], end), size)


def stream(source: TokenDocuments) -> Tokens:
    """Returns all documents in order, each followed by the end-of-text token."""
    return np.concatenate(list(source))


def new_model(config: TrainConfig, corpus: Corpus) -> DecoderOnlyTransformer:
    """Returns a new model for the vocabulary of the corpus; seeds its weights and its dropout."""
    torch.manual_seed(config.seed)
    return accelerate(DecoderOnlyTransformer(replace(config.model, vocab_size=corpus.vocab_size)))


def steps(
    model: DecoderOnlyTransformer, config: TrainConfig, corpus: Corpus, batches: Iterator[tuple[Tensor, Tensor]]
) -> Iterator[int]:
    """Trains for max_steps; yields the number of steps done after each step."""
    objective = Objective(model, end_to_mask(config, corpus))
    optimizers = build_optimizers(model, config.optimizer)
    total = config.max_steps or 1
    for step in range(total):
        set_learning_rate(optimizers, lr_scale(step, total, config.optimizer))
        update(objective, config, optimizers, batches)
        yield step + 1


def update(
    objective: Objective,
    config: TrainConfig,
    optimizers: list[torch.optim.Optimizer],
    batches: Iterator[tuple[Tensor, Tensor]],
) -> None:
    """Takes one optimizer step at the current learning rates."""
    accumulate_gradients(objective, itertools.islice(batches, config.accumulation_steps), config.tokens_per_step)
    clip_gradients(objective.parameters(), config.optimizer.grad_clip)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def packed(config: TrainConfig, corpus: Corpus) -> Iterator[tuple[Tensor, Tensor]]:
    """Returns endless micro-batches, packed and shuffled as in a run. The first is already prepared."""
    rows = PackedBatches(corpus.train, config.data.seq_length, config.batch_size, config.seed)
    batches = ((inputs, targets) for inputs, targets, _ in rows)
    return itertools.chain([next(batches)], batches)


def bits_per_byte(model: DecoderOnlyTransformer, config: TrainConfig, corpus: Corpus) -> float:
    """Evaluates the model on the held-out scenes."""
    cut = validation_rows(stream(corpus.held_out), config.data.seq_length, corpus.held_out.end_of_text)
    end = end_to_mask(config, corpus)
    return evaluate_perplexity(model, *cut, corpus.held_out_bytes, batch_size=64, end_of_text=end).bits_per_byte


def end_to_mask(config: TrainConfig, corpus: Corpus) -> int | None:
    """Returns the end-of-text id if attention is masked between documents, in training and evaluation; else None."""
    return corpus.train.end_of_text if config.data.mask_documents else None


def cpu_seconds() -> float:
    """Returns the CPU time used by all threads of this process so far, user and system."""
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


def measure(config: TrainConfig) -> dict[str, Any]:
    """Trains and evaluates once; returns time and score. cpu_s is half of the CPU time of all threads."""
    corpus = read_corpus(config.data.encoding)
    model, batches = new_model(config, corpus), packed(config, corpus)
    wall, cpu = time.perf_counter(), cpu_seconds()
    for _ in steps(model, config, corpus, batches):
        pass
    spent = {"wall_s": time.perf_counter() - wall, "cpu_s": (cpu_seconds() - cpu) / 2}
    score = {"bits_per_byte": bits_per_byte(model, config, corpus)}
    parameters = sum(p.numel() for p in model.parameters())
    return {"seed": config.seed, "steps": config.max_steps, **spent, **score, "parameters": parameters}


def changed(config: TrainConfig, settings: Mapping[str, str]) -> TrainConfig:
    """Returns the config with changes such as {"model.d_ff": "256"}. Raises ConfigError for an invalid setting."""
    values = config.to_dict()
    for key, text in settings.items():
        group, _, name = key.rpartition(".")
        value = text if text[:1].isalpha() and text not in ("true", "false", "null") else json.loads(text)
        (values.setdefault(group, {}) if group else values)[name] = value
    return TrainConfig.from_dict(values)


def main() -> None:
    """Reads the flags and runs one trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="PyTorch threads (default 2)")
    parser.add_argument("--set", nargs="+", metavar="KEY=VALUE", default=[], help="changes to the demo preset")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        config = changed(PRESETS["demo"], dict(item.split("=", 1) for item in args.set))
    except ValueError as error:  # ConfigError is one
        parser.error(str(error))
    print(json.dumps({"set": args.set, **measure(replace(config, seed=args.seed))}))


if __name__ == "__main__":
    main()
