"""An experiment on a CPU: skip the parts of the loss's gradient whose probabilities are negligible.

    python benchmarks/gradient_filtering.py                    about four minutes on two cores
    python benchmarks/gradient_filtering.py --steps 6 --more-steps 2 --rounds 1 --out trial.json

After some training, most of 100,277 probabilities are close to 0. On GPUs, Cut Cross-Entropy (arXiv 2411.09009) skips
blocks of the output matrix in which no probability reaches 2^-12. This script tries the same with the tiles of
kernels/tiled_loss.py, for the shape of the preset quick after some training on the bundled plays in cl100k_base:

    skip d_weight    in the second pass: skip tiles whose total probability is below the threshold at every position
    skip mix         also in the first pass, where the running sum is used as a lower bound of the final sum

The logits are always computed, so at most one or two of three products are saved. The sum of a tile at a position is
available without a further pass and bounds each of its probabilities. `tiles_below` is the share of tiles that a test
of each single probability would skip. The vocabulary is in one of two orders: that of cl100k_base, and by frequency in
the training text, so that rare entries share tiles. The second order costs nothing here: the ids are renumbered before
training.

The results are the share of skipped products, the time of value and gradients relative to tiled_head, the error of the
gradients, and the validation loss after more steps from the same weights. AdamW divides a gradient by an estimate of
its typical size, so a small gradient can still cause a large step.
"""

from __future__ import annotations

import os

os.environ.setdefault(
    "THP_MEM_ALLOC_ENABLE", "1"
)  # huge pages, as in main.py; PyTorch reads it at its first allocation

import argparse
import contextlib
import copy
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from machine import machine, typed_command
from torch import Tensor

from transformer.config import IGNORE, DataConfig
from transformer.data.open import open_dataset
from transformer.dataset import PackedBatches, TokenDocuments
from transformer.kernels import accelerate
from transformer.kernels import tiled_loss as loss
from transformer.model import DecoderOnlyTransformer
from transformer.optimizer import build_optimizers, set_learning_rate
from transformer.perplexity import evaluate_perplexity
from transformer.presets import PRESETS
from transformer.scheduler import lr_scale
from transformer.training_utils import clip_gradients

RESULT = Path(__file__).parent / "results" / "gradient_filtering.json"
QUICK = PRESETS["quick"]
THRESHOLDS = {"2^-12": 2.0**-12, "2^-20": 2.0**-20}
LEARNING_RATE = 2e-3
"""Higher than in the preset, because there are few steps."""


class Filtered(NamedTuple):
    """The results of tiled_head, and the skipped shares of the two products."""

    nats: Tensor
    d_hidden: Tensor
    d_weight: Tensor
    mix_skipped: float
    d_weight_skipped: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="steps of 1,024 tokens before the measurement")
    parser.add_argument(
        "--more-steps", type=int, default=30, help="steps after the measurement, with and without filtering"
    )
    parser.add_argument("--rounds", type=int, default=8, help="timed micro-batches")
    parser.add_argument("--threads", type=int, default=2, help="PyTorch threads (default 2)")
    parser.add_argument("--out", type=Path, default=RESULT, help="result file (default: the one in benchmarks/results)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {"command": typed_command()}
    results |= {"machine": machine(), "variants": {}, "after_more_steps": {}}
    batches, validation, ids = read()
    torch.manual_seed(QUICK.seed)
    model = accelerate(DecoderOnlyTransformer(QUICK.model))
    results["train_loss"] = train(model, batches, options.steps, 0.0, warmup=True)
    results["variants"] = compare(model, [next(batches) for _ in range(options.rounds)], ids)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    for name, row in results["variants"].items():
        print(f"{name}: {row}", flush=True)
    more = [next(batches) for _ in range(options.more_steps)]
    for name, threshold in {"dense": 0.0, **THRESHOLDS}.items():
        trained = copy.deepcopy(model)
        train(trained, iter(more), len(more), threshold)
        score = evaluate_perplexity(trained, *validation)
        results["after_more_steps"][name] = round(score.loss, 4)
        print(f"validation loss after {len(more)} more steps, {name}: {score.loss:.4f}", flush=True)
    results["verdict"] = verdict(results)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(results["verdict"])


def read() -> tuple[Iterator[tuple[Tensor, Tensor]], tuple[Tensor, Tensor], Tensor]:
    """Returns the plays, renumbered by frequency: endless micro-batches, validation rows, and rank -> id (V,)."""
    with contextlib.closing(open_dataset(DataConfig("shakespeare", validation_tokens=16_384))) as data:
        assert isinstance(data.train, TokenDocuments)
        counts = np.bincount(np.concatenate(data.train.documents), minlength=QUICK.model.vocab_size)
        ids = torch.from_numpy(np.argsort(-counts, kind="stable"))  # (V,) rank -> id
        ranks = torch.argsort(ids)  # (V,) id -> rank
        inputs, targets = data.validation
        renumbered = torch.where(targets == IGNORE, IGNORE, ranks[targets.clamp(min=0)])
        packed = PackedBatches(data.train, QUICK.data.seq_length, QUICK.batch_size, QUICK.seed)
        batches = ((ranks[tokens], ranks[wanted]) for tokens, wanted, _ in packed)
        return batches, (ranks[inputs], renumbered), ids


def train(
    model: DecoderOnlyTransformer,
    batches: Iterator[tuple[Tensor, Tensor]],
    steps: int,
    threshold: float,
    warmup: bool = False,
) -> float:
    """Trains with AdamW, one micro-batch per step; returns the last loss. A threshold of 0 skips nothing."""
    settings = replace(QUICK.optimizer, learning_rate=LEARNING_RATE, warmup_fraction=0.1, schedule="constant")
    optimizers = build_optimizers(model, settings)
    weight, mean = model.head.weight, 0.0
    for step in range(steps):
        tokens, targets = next(batches)
        set_learning_rate(optimizers, lr_scale(step, steps, settings) if warmup else 1.0)
        hidden = model.hidden(tokens).flatten(0, 1)  # (N, C)
        with torch.no_grad():
            found = filtered_head(hidden.detach(), weight.detach(), targets.flatten(), threshold, skips_mix=True)
        hidden.backward(found.d_hidden / targets.numel())
        assert weight.grad is not None  # from the tied embedding
        weight.grad += found.d_weight / targets.numel()
        clip_gradients(model.parameters(), settings.grad_clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        mean = float(found.nats) / targets.numel()
        if step % 10 == 9:
            print(f"step {step + 1}: loss {mean:.3f}", flush=True)
    return round(mean, 4)


@torch.no_grad()
def filtered_head(hidden: Tensor, weight: Tensor, targets: Tensor, threshold: float, skips_mix: bool) -> Filtered:
    """Computes tiled_head without the tiles below the threshold: hidden (N, C), weight (V, C), targets (N,)."""
    vocab, groups = len(weight), -(-len(hidden) // (loss.BUFFER_NUMBERS // len(weight)))
    group = -(-len(hidden) // groups)
    buffer = hidden.new_empty(group * vocab)
    nats, d_hidden, d_weight = torch.zeros(()), torch.empty_like(hidden), torch.empty_like(weight)
    skipped, tiles_seen = [0, 0], 0
    for start in range(0, len(hidden), group):
        x, y = hidden[start : start + group], targets[start : start + group]  # (n, C), (n,)
        tiles = [part.view(len(x), -1) for part in buffer[: len(x) * vocab].split(len(x) * loss.TILE)]  # (n, tile)
        total, mix, masses = x.new_zeros(len(x), 1), torch.zeros_like(x), []
        for tile, rows in zip(tiles, weight.split(loss.TILE), strict=True):
            torch.mm(x, rows.T, out=tile)
            masses.append(tile.exp_().sum(1, keepdim=True))  # (n, 1)
            total += masses[-1]
            if skips_mix and float((masses[-1] / total).max()) < threshold:
                skipped[0] += 1
            else:
                torch.addmm(mix, tile, rows, out=mix)
        target_rows = weight.index_select(0, y)
        nats += (total.log() - (x * target_rows).sum(1, keepdim=True)).sum()
        d_hidden[start : start + group] = mix / total - target_rows
        largest = (torch.cat(masses, 1) / total).amax(0).tolist()  # (tiles)
        for tile, d_rows, most in zip(tiles, d_weight.split(loss.TILE), largest, strict=True):
            if most >= threshold:
                loss._add_product(d_rows, tile.T, x / total, fresh=start == 0)
            else:
                skipped[1] += 1
                if start == 0:
                    d_rows.zero_()
        tiles_seen += len(tiles)
        d_weight.index_add_(0, y, x, alpha=-1)
    return Filtered(nats, d_hidden, d_weight, skipped[0] / tiles_seen, skipped[1] / tiles_seen)


@torch.no_grad()
def compare(
    model: DecoderOnlyTransformer, batches: list[tuple[Tensor, Tensor]], ids: Tensor
) -> dict[str, dict[str, Any]]:
    """Runs each variant on each micro-batch; returns medians, with the time relative to tiled_head."""
    by_rank = model.head.weight.detach()
    orders = {"frequency": (by_rank, torch.arange(len(ids))), "own": (by_rank[torch.argsort(ids)], ids)}
    rows: dict[str, list[dict[str, float]]] = {}
    for tokens, targets in batches:
        hidden = model.hidden(tokens).flatten(0, 1)
        for order, (weight, number) in orders.items():
            wanted = number[targets.flatten()]
            started = time.perf_counter()
            dense = loss.tiled_head(hidden, weight, wanted, wants_gradient=True)
            dense_s = time.perf_counter() - started
            largest = largest_probabilities(hidden, weight)
            for name, threshold in THRESHOLDS.items():
                for skips_mix in (False, True):
                    started = time.perf_counter()
                    found = filtered_head(hidden, weight, wanted, threshold, skips_mix)
                    seconds = time.perf_counter() - started
                    skipped = "mix and d_weight" if skips_mix else "d_weight"
                    row = {"seconds": seconds, "dense_s": dense_s, "time_over_dense": seconds / dense_s}
                    row |= {"mix_skipped": found.mix_skipped, "d_weight_skipped": found.d_weight_skipped}
                    row["tiles_below"] = float((largest < threshold).float().mean())
                    rows.setdefault(f"{order} order, below {name}, {skipped}", []).append(
                        row | difference(found, dense)
                    )
    return {
        name: {key: float(f"{statistics.median(row[key] for row in found):.4g}") for key in found[0]}
        for name, found in rows.items()
    }


def largest_probabilities(hidden: Tensor, weight: Tensor) -> Tensor:
    """Returns the largest probability in each tile of 2,048 entries by about 340 positions (groups, tiles)."""
    found = []
    for x in hidden.split(-(-len(hidden) // 3)):
        most = (x @ weight.T).softmax(1).amax(0)  # (V,)
        found.append(torch.stack([tile.amax() for tile in most.split(loss.TILE)]))
    return torch.stack(found)


def difference(found: Filtered, dense: tuple[Tensor, Tensor, Tensor]) -> dict[str, float]:
    """Returns the relative errors of the gradients, and the share of weight rows that lost their gradient."""
    _, d_hidden, d_weight = dense
    lost = (found.d_weight.abs().amax(1) == 0) & (d_weight.abs().amax(1) > 0)  # (V,)
    return {
        "d_hidden_off": float((found.d_hidden - d_hidden).norm() / d_hidden.norm()),
        "d_weight_off": float((found.d_weight - d_weight).norm() / d_weight.norm()),
        "rows_without_gradient": float(lost.float().mean()),
    }


def verdict(results: dict[str, Any]) -> str:
    """Returns a sentence: filtering pays if it saves a quarter of the time and costs at most 0.005 validation loss."""
    skipping = {name: row for name, row in results["variants"].items() if row["d_weight_skipped"] >= 0.1}
    if not skipping:
        return "do not keep: no variant skips a tenth of the tiles, so differences in time are noise"
    name, best = min(skipping.items(), key=lambda item: item[1]["time_over_dense"])
    losses = results["after_more_steps"]
    threshold = next(key for key in THRESHOLDS if key in name)
    worse = losses[threshold] - losses["dense"]
    keep = best["time_over_dense"] <= 0.75 and worse <= 0.005
    return (
        f"{'keep' if keep else 'do not keep'}: the fastest variant ({name}) takes {best['time_over_dense']:.2f} x the "
        f"dense time, skips {best['mix_skipped']:.0%} and {best['d_weight_skipped']:.0%} of the two products, leaves "
        f"{best['rows_without_gradient']:.0%} of the vocabulary's rows without a gradient, and after more "
        f"steps (frequency order, both skipped) the validation loss differs by {worse:+.4f} from dense. Required: "
        "at most 0.75 x the time, and at most +0.005"
    )


if __name__ == "__main__":
    main()
