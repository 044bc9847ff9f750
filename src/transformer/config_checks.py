"""The rules that settings must follow, one function for each group in config.py.

Each function returns one sentence for every rule that is broken: the given value, the allowed ones, and a value that
would work if there is one. Config.check() raises them all at once. The groups come as `Any`, since config.py imports
this file. Only the standard library is imported.
"""

from __future__ import annotations

import math
import re
from typing import Any

from transformer.config_base import LARGEST, between, positive, seed_problems


def model_problems(settings: Any) -> list[str]:
    sizes = ("vocab_size", "d_model", "num_heads", "num_layers", "d_ff", "max_seq_len", "num_kv_heads", "head_width")
    found = positive(settings, *sizes)
    if not found:  # the rules about shapes divide by these
        found = shape_problems(settings) + rotary_problems(settings)
    return found + positive(settings, "norm_eps", "rope_theta") + between(settings, 0, 1, "dropout")


def shape_problems(settings: Any) -> list[str]:
    found = []
    if settings.head_width is None and settings.d_model % settings.num_heads:
        near = settings.d_model - settings.d_model % settings.num_heads
        fits = ", ".join(str(n) for n in (near, near + settings.num_heads) if n)
        found.append(f"d_model={settings.d_model} is not divisible by num_heads={settings.num_heads}; nearest: {fits}")
    if settings.position == "sinusoidal" and settings.d_model % 2:
        found.append(f"position='sinusoidal' pairs sines with cosines, so d_model={settings.d_model} must be even")
    if settings.num_heads % settings.kv_heads:
        fits = ", ".join(str(n) for n in range(1, settings.num_heads + 1) if settings.num_heads % n == 0)
        found.append(
            f"num_kv_heads={settings.kv_heads} does not divide num_heads={settings.num_heads}; possible: {fits}"
        )
    if settings.parallel_blocks and settings.norm_position == "after":
        found.append("parallel_blocks and norm_position='after' cannot be combined: choose one of them")
    return found


def rotary_problems(settings: Any) -> list[str]:
    width, fraction = settings.head_dim, settings.rotary_fraction
    if settings.position != "rotary":
        given = [f"rotary_fraction={fraction}"] * (fraction != 1)
        given += [f"rope_scaling={settings.rope_scaling!r}"] * bool(settings.rope_scaling)
        return [f"{setting} needs position='rotary', not {settings.position!r}" for setting in given]
    if settings.head_width is None and settings.d_model % settings.num_heads:
        return []  # there is no width: a problem of the shape
    if width % 2:
        name = "d_model/num_heads" if settings.head_width is None else "head_width"
        return [f"position='rotary' rotates pairs, so {name}={width} must be even"]
    found, pairs = scaling_problems(settings.rope_scaling), fraction * width / 2
    if not 0 < fraction <= 1 or round(pairs) == 0 or not math.isclose(pairs, round(pairs)):
        nearest = min(max(round(pairs), 1), width // 2) / (width / 2)
        found.append(f"rotary_fraction={fraction} is no whole number of the {width // 2} pairs; nearest: {nearest}")
    return found


def scaling_problems(scaling: str) -> list[str]:
    kind, *parts = scaling.split(":")
    numbers = [float(part) for part in parts if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,20})?", part)]
    match (kind, len(parts) - len(numbers), numbers):
        case ("", 0, []):
            return []
        case ("linear", 0, [factor]) if factor >= 1:
            return []
        case ("llama3", 0, [factor, low, high, original]) if factor >= 1 and low < high and original >= 1:
            return []
    return [
        f"rope_scaling={scaling!r} is not linear:FACTOR or llama3:FACTOR:LOW:HIGH:ORIGINAL with FACTOR at least 1 and "
        "LOW below HIGH, for example llama3:8:1:4:8192"
    ]


def data_problems(settings: Any) -> list[str]:
    found = positive(settings, "seq_length", "tokens_per_epoch", "shuffle_rows", "validation_tokens")
    found += positive(settings, "cache_shards", "cache_gb", "shard_mb", "num_workers", "network_patience")
    if not 0 < settings.validation_fraction < 1:
        found.append(f"validation_fraction={settings.validation_fraction} must be above 0 and below 1")
    if not settings.dataset:
        found.append("dataset is empty: give fineweb, shakespeare, or a path to your own text")
    trained = re.fullmatch(r"bpe(\d+)", settings.encoding)
    if trained and (len(trained[1]) > 9 or int(trained[1]) > LARGEST["vocab_size"]):
        found.append(f"encoding={settings.encoding} must be at most bpe{LARGEST['vocab_size']}")
    if settings.dataset.startswith("hf:") and not re.fullmatch(r"hf:[\w.-]+/[\w.-]+", settings.dataset):
        found.append(f"dataset={settings.dataset!r} is not hf:OWNER/NAME, for example hf:Salesforce/wikitext")
    return found


def optimizer_problems(settings: Any) -> list[str]:
    found = positive(settings, "learning_rate", "muon_learning_rate")
    found += between(settings, 0, 1, "beta1", "beta2", "warmup_fraction")
    for name in ("weight_decay", "grad_clip"):
        if getattr(settings, name) < 0:
            found.append(f"{name}={getattr(settings, name)} must not be below 0")
    if not 0 < settings.decay_fraction <= 1:
        found.append(f"decay_fraction={settings.decay_fraction} must be above 0 and at most 1")
    if not 0 <= settings.min_lr_ratio <= 1:
        found.append(f"min_lr_ratio={settings.min_lr_ratio} must be from 0 to 1")
    return found


def train_problems(settings: Any) -> list[str]:
    found: list[str] = settings.model.problems() + settings.data.problems() + settings.optimizer.problems()
    found += positive(settings, "epochs", "max_steps", "batch_size", "accumulation_steps", "eval_every", "log_every")
    for name in ("patience", "save_every_steps", "keep_last", "sample_tokens"):
        if getattr(settings, name) < 0:
            found.append(f"{name}={getattr(settings, name)} must not be below 0")
    found += positive(settings, "save_every_minutes") + seed_problems(settings.seed)
    if not settings.checkpoint_dir.strip():
        found.append("checkpoint_dir is empty: name a folder for the run's files, or . for the current one")
    if settings.shard and settings.compile:
        found.append("compile and shard cannot be combined: choose one of them")
    if settings.watch_inside and settings.data.seq_length < 4:
        found.append(f"watch_inside needs rows of at least 4 tokens; seq_length={settings.data.seq_length}")
    if settings.data.seq_length > settings.model.max_seq_len:
        found.append(
            f"seq_length={settings.data.seq_length} is longer than max_seq_len={settings.model.max_seq_len}: "
            f"set max_seq_len to {settings.data.seq_length} as well"
        )
    return found


def sampling_problems(settings: Any) -> list[str]:
    found = positive(settings, "top_k") + between(settings, 1e-6, 1e6, "repetition_penalty")
    if settings.temperature < 0:
        found.append(f"temperature={settings.temperature} must not be below 0 (0 is greedy)")
    elif settings.temperature:
        found += between(settings, 1e-6, 1e6, "temperature")  # float32 overflows outside this range
    if not 0 < settings.top_p <= 1:
        found.append(f"top_p={settings.top_p} must be above 0 and at most 1")
    if not 0 <= settings.min_p <= 1:
        found.append(f"min_p={settings.min_p} must be from 0 to 1")
    return found
