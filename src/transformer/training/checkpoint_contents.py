"""What a checkpoint must contain, checked before a command uses any of it.

A checkpoint may come from elsewhere. It runs no code (weights_only=True), but under the right names it may hold values
of any kind: a text in place of a number, a sparse tensor, settings of a model that no machine can hold. Two functions
check it: wrong_kind() the kinds of all values that commands read, check_weights() the weights against the settings, on
PyTorch's "meta" device, which has shapes but no memory.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from transformer.config import ModelConfig
from transformer.model import DecoderOnlyTransformer
from transformer.planning.hardware import device_memory

Check = Callable[[object], bool]
MOST_NAMED = 3
"""Weights named in a problem; the others are counted."""
LONGEST = 160
"""Characters of a value or an error that a message quotes."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def is_number(value: object) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**63)


def is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, float) and math.isfinite(value)


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_numbers(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(is_number, value))


def is_curve(value: object) -> bool:
    """Whether the value is a list of points of two numbers or more."""

    def is_point(point: object) -> bool:
        return isinstance(point, list | tuple) and len(point) >= 2 and all(map(is_number, point[:2]))

    return isinstance(value, list) and all(map(is_point, value))


def is_config(value: object) -> bool:
    """Whether the value is a dict that holds each group of settings; TrainConfig.from_dict() checks the settings."""
    return isinstance(value, dict) and all(isinstance(value.get(name), dict) for name in ("model", "data", "optimizer"))


def is_dict_of(value: object, check: Check) -> bool:
    """Whether the value is a dict with texts as names, and `check` holds for all that it contains."""
    return isinstance(value, dict) and all(is_text(name) and check(item) for name, item in value.items())


def is_metrics(value: object) -> bool:
    return isinstance(value, dict) and all(
        is_text(name) and METRICS.get(name, is_number)(item) for name, item in value.items()
    )


def is_origin(value: object) -> bool:
    return value is None or (isinstance(value, dict) and all(check(value.get(name)) for name, check in ORIGIN.items()))


def is_text_facts(value: object) -> bool:
    return value is None or (
        isinstance(value, dict) and all(check(value.get(name)) for name, check in TEXT_FACTS.items())
    )


METRICS: dict[str, Check] = {"verdict": is_text, "reason": is_text}
"""The metrics that are no numbers."""
ORIGIN: dict[str, Check] = {
    "path": is_text, "dataset": is_text, "step": is_count, "tokens": is_count,
    "imported": lambda value: value is None or is_dict_of(value, is_text),
}  # fmt: skip
TEXT_FACTS: dict[str, Check] = {
    "digest": lambda value: value is not None,
    "description": is_text,
    "tokens_per_epoch": is_count,
}
REQUIRED: dict[str, Check] = {
    "config": is_config,
    "tokenizer": lambda value: is_dict_of(value, lambda item: True),
    "model": lambda value: is_dict_of(value, lambda item: True),
    "step": is_count,
    "tokens": is_count,
}
"""By name in a checkpoint: whether a value has the right kind."""
OPTIONAL: dict[str, tuple[Check, str]] = {
    "epoch": (is_count, "a whole number"),
    "world_size": (is_count, "a whole number"),
    "versions": (lambda value: is_dict_of(value, is_text), "texts by name"),
    "machine": (lambda value: is_dict_of(value, is_text), "texts by name"),
    "data": (lambda value: is_dict_of(value, is_count), "whole numbers by name"),
    "metrics": (is_metrics, "numbers by name, and a verdict with its reason"),
    "init_from": (is_origin, "a checkpoint's path, dataset, step and tokens"),
    "imported": (lambda value: is_dict_of(value, is_text), "texts by name"),
    "train_points": (is_curve, "a list of points"),
    "validation_points": (is_curve, "a list of points"),
    "saved_epochs": (is_curve, "a list of points"),
    "epoch_loss": (is_numbers, "a list of numbers"),
    "metric_sums": (is_numbers, "a list of numbers"),
    "loss_scale": (is_numbers, "a list of numbers"),
    "text": (is_text_facts, "a text's digest, description and tokens per epoch"),
    "optimizers": (lambda value: isinstance(value, list), "a list of optimizer states"),
}
"""The same for values that may be missing, each with a description of the right kind."""


def is_checkpoint(contents: object) -> TypeGuard[dict[str, Any]]:
    """Whether the contents of a file are those of a checkpoint: everything that all checkpoints have."""
    return isinstance(contents, dict) and all(check(contents.get(name)) for name, check in REQUIRED.items())


def wrong_kind(contents: Mapping[str, Any]) -> str | None:
    """Returns which value in a checkpoint is not of the kind that its name promises; None: there is none."""
    for name, (check, wanted) in OPTIONAL.items():
        if name in contents and not check(contents[name]):
            return f"{name} is {reprlib.repr(contents[name])}, not {wanted}"
    return None


def brief(text: object) -> str:
    """Returns the first line of a text that somebody else wrote, of LONGEST characters at most."""
    line = (str(text).strip() or type(text).__name__).splitlines()[0]
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def check_weights(config: ModelConfig, weights: Mapping[str, Any], file_bytes: int) -> None:
    """Raises ValueError unless a model of these settings fits the weights and this machine; needs no memory for it.

    `file_bytes` is the size of the file of the weights: a small file can describe tensors of any size.
    """
    shapes = meta_model(config)
    if problems := weight_problems(weights, shapes):
        raise ValueError(problems[0])
    stored = sum(weights[name].nbytes for name, _ in shapes.named_parameters())  # tied weights once
    if stored > file_bytes:
        raise ValueError(f"its weights would take {stored:,} bytes, and the whole file has {file_bytes:,}")
    check_memory(shapes)


def meta_model(config: ModelConfig) -> DecoderOnlyTransformer:
    """Returns a model without memory. Raises ValueError for settings whose sizes no tensor can have."""
    try:
        with _NoNoise():
            return DecoderOnlyTransformer(config, device="meta")
    except (RuntimeError, OverflowError, MemoryError, TypeError) as error:
        raise ValueError(f"a model with its settings is too large: {brief(error)}") from error


class _NoNoise(TorchFunctionMode):
    """Leaves initial weights undrawn: to draw them on the meta device loads PyTorch's compiler, which takes seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return None if func is nn.init.normal_ else func(*args, **(kwargs or {}))


def check_memory(shapes: DecoderOnlyTransformer) -> None:
    """Raises ValueError for a model that does not fit this machine's memory."""
    tables = sum(table.nbytes for table in shapes.buffers())  # of positions: in no file, computed in double precision
    wanted = sum(weight.nbytes for weight in shapes.parameters()) + 6 * tables
    memory = device_memory(torch.device("cpu"))
    if memory is not None and wanted > memory:
        raise ValueError(f"a model with its settings needs {wanted:,} bytes of memory, and this machine has {memory:,}")


def weight_problems(weights: Mapping[str, Any], model: DecoderOnlyTransformer) -> list[str]:
    """Returns why the weights do not fit the model, which may be on the meta device, or are unusable."""
    wanted = model.state_dict()
    shapes = [
        f"{name} {tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}, not {tuple(like.shape)}"
        for name, like in wanted.items()
        if name in weights and getattr(value := weights[name], "shape", None) != like.shape
    ]
    tensors = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    other_kind = [name for name, value in tensors.items() if not is_usable(value)]
    broken = [name for name, value in tensors.items() if is_usable(value) and not all_finite(value)]
    found = {
        "are missing": [name for name in wanted if name not in weights],
        "are not the model's": [name for name in weights if name not in wanted],
        "have another shape": shapes,
        "are not dense tensors of floating-point numbers": other_kind,
        "hold nan or infinite numbers": broken,
    }
    problems = [listed(f"weights that {what}", names) for what, names in found.items() if names]
    token, head = weights.get("embeddings.token.weight"), weights.get("head.weight")
    if model.config.tie_embeddings and not problems and not torch.equal(token, head):  # type: ignore[arg-type]
        problems.append("head.weight is not the token table that it is tied to")
    return problems


def is_usable(value: object) -> bool:
    """Whether a stored value can be a weight: a dense tensor of floating-point numbers, each of which is in the file.

    A stride of 0 repeats one number, so that a few bytes are a tensor of any size.
    """
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type == "meta":
        return False
    return value.dtype in FLOATS and value.untyped_storage().nbytes() >= value.nbytes


def all_finite(weight: Tensor) -> bool:
    """Whether a tensor holds neither nan nor infinite numbers; isfinite() on all of it would take its memory twice."""
    return weight.numel() == 0 or all(bound.isfinite().item() for bound in weight.aminmax())  # nan is both bounds


def listed(what: str, names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{what}: {', '.join(brief(name) for name in names[:MOST_NAMED])}{more}"
