"""A report on a checkpoint: its contents, and whether they are valid. `main.py inspect` prints it.

Reading a file verifies its checksums (checkpoint.py, sharded_checkpoint.py). Here its contents are checked against the
model that its settings describe, built without memory on PyTorch's "meta" device.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from transformer.config import TrainConfig
from transformer.distributed import sharded_checkpoint
from transformer.model import DecoderOnlyTransformer
from transformer.optimizer import build_optimizers
from transformer.perplexity import calculate_perplexity_from_loss
from transformer.text import Tokenizer, tokenizer_from_state
from transformer.training import checkpoint
from transformer.training.checkpoint import CheckpointError
from transformer.training.checkpoint_contents import brief, is_usable, meta_model, weight_problems
from transformer.training.state import must_fit

PARTS = {
    "embeddings.token": "token embedding",
    "embeddings.position": "position embedding",
    ".attention.qkv.": "attention",
    ".attention.out.": "attention",
    ".feedforward.": "feed-forward",
    "norm.": "norms",
    "head.": "output projection",
}
"""Parts of the model by a substring of their weights' names; the first match counts."""
CARRIED = {
    "byte": "a rule: an id for each byte",
    "named": "by its name; the vocabulary comes with this package or with tiktoken",
    "bpe": "whole, every entry",
    "tokenizer.json": "whole, as it came with the model",
}
"""How a checkpoint stores its tokenizer, by kind."""


@dataclass(frozen=True)
class Part:
    """Weights of one part of the model; tied weights count only at their first occurrence."""

    name: str
    parameters: int
    bytes: int
    rms: float
    """Root mean square of the weights."""
    dtype: str
    is_tied: bool = False
    """Whether all weights are tied to an earlier part; the numbers above are then 0."""


@dataclass(frozen=True)
class Encoding:
    """The tokenizer, and how the file stores it."""

    name: str
    vocab_size: int | None
    """None, like end_of_text, if the tokenizer cannot be loaded."""
    end_of_text: int | None
    carried: str


@dataclass(frozen=True)
class Report:
    """Everything that `inspect` prints about a checkpoint. Sizes in bytes, losses in nats per token."""

    path: Path
    kind: str
    bytes: int
    entries: int
    """Stored pieces with a verified checksum: entries of a file's archive, or files of a folder."""
    format: int
    problems: list[str]
    """Reasons why the checkpoint is unusable, one sentence each; empty: it is valid."""
    config: TrainConfig
    encoding: Encoding
    parts: list[Part]
    optimizer_bytes: int
    """Size of the optimizer state, in a training state."""
    step: int
    epoch: int | None
    tokens: int
    metrics: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **values,
            "path": str(self.path),
            "valid": not self.problems,
            "config": self.config.to_dict(),
            "encoding": dataclasses.asdict(self.encoding),
            "parameters": self.parameters,
            "parts": [dataclasses.asdict(part) for part in self.parts],
        }


def inspect(path: Path) -> Report:
    """Reads a checkpoint, a state to resume from or a sharded one, and checks all of it.

    Raises CheckpointError if it is missing, damaged, of another program, or has settings that this version cannot read.
    Everything else, such as weights that do not fit its settings, is listed in the report's problems.
    """
    contents = sharded_checkpoint.load(path)
    try:
        config = TrainConfig.from_dict(contents["config"])
        model = meta_model(config.model)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} does not fit this version: {brief(error)}") from error
    kind = "state to resume from" if "optimizers" in contents else "epoch checkpoint"
    kind = "imported model" if "imported" in contents else kind
    if "folder" in contents:
        kind += ", sharded"
        with must_fit(path):
            contents = sharded_checkpoint.complete(contents, model)
    tokenizer, problems = _encoding(contents, config)
    weights = contents["model"]
    problems += weight_problems(weights, model) + _state_problems(contents, model, config)
    return Report(
        path, kind, *_size(path), contents["format"], problems, config, tokenizer,
        parts=_parts({name: value for name, value in weights.items() if is_usable(value)}),
        optimizer_bytes=sum(t.nbytes for t in _tensors(contents.get("optimizers", []))),
        step=contents["step"], epoch=contents.get("epoch"), tokens=contents["tokens"],
        metrics=_metrics(contents), provenance=_provenance(contents, config),
    )  # fmt: skip


def _encoding(contents: Mapping[str, Any], config: TrainConfig) -> tuple[Encoding, list[str]]:
    state = contents["tokenizer"]
    carried = CARRIED.get(str(state.get("kind")), "in a way unknown to this version")
    try:
        tokenizer: Tokenizer = tokenizer_from_state(state)
    except (ValueError, OSError) as error:
        return Encoding(brief(state.get("name", "unknown")), None, None, carried), [f"the encoding: {brief(error)}"]
    problems = []
    if tokenizer.vocab_size != config.model.vocab_size:
        problems.append(f"the encoding has {tokenizer.vocab_size:,} ids, the model {config.model.vocab_size:,}")
    return Encoding(tokenizer.name, tokenizer.vocab_size, tokenizer.eot_id, carried), problems


def _state_problems(contents: Mapping[str, Any], model: DecoderOnlyTransformer, config: TrainConfig) -> list[str]:
    """Returns why a run cannot resume with the optimizer state; nothing for an epoch's checkpoint."""
    if "optimizers" not in contents:
        return []
    optimizers = build_optimizers(model, config.optimizer)
    try:
        for optimizer, state in zip(optimizers, contents["optimizers"], strict=True):
            optimizer.load_state_dict(state)
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        return [f"the optimizers' state does not fit: {brief(error)}"]
    values = [
        (weight, value)
        for optimizer in optimizers
        for weight, state in optimizer.state.items()
        for value in state.values()
        if isinstance(value, Tensor) and value.ndim
    ]
    problems = []
    if wrong := sum(weight.shape != value.shape for weight, value in values):
        problems.append(f"{wrong} tensors of the optimizer state have another shape than their weights")
    tensors = list(_tensors(contents["optimizers"]))
    if other_kind := sum(not is_usable(tensor) for tensor in tensors):
        return [*problems, f"{other_kind} of {len(tensors)} tensors of the optimizer state are not dense numbers"]
    if broken := sum(not tensor.isfinite().all() for tensor in tensors):
        problems.append(f"{broken} of {len(tensors)} tensors of the optimizer state hold nan or infinite numbers")
    return problems


def _parts(weights: Mapping[str, Tensor]) -> list[Part]:
    """Returns the parts in the order of the forward pass."""
    members: dict[str, list[Tensor]] = {}
    tied: dict[str, int] = {}
    seen: set[int] = set()
    for name, tensor in weights.items():
        part = next((part for mark, part in PARTS.items() if mark in name), name.split(".")[0])
        own = members.setdefault(part, [])
        if tensor.data_ptr() in seen:
            tied[part] = tied.get(part, 0) + 1
        else:
            seen.add(tensor.data_ptr())
            own.append(tensor)
    order = list(PARTS.values())
    names = sorted(members, key=lambda part: order.index(part) if part in order else len(order))
    return [_part(name, members[name], bool(tied.get(name)) and not members[name]) for name in names]


def _part(name: str, tensors: list[Tensor], is_tied: bool) -> Part:
    count = sum(t.numel() for t in tensors)
    squares = sum(float(t.double().square().sum()) for t in tensors)
    dtypes = ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors}))
    rms = math.sqrt(squares / count) if count and math.isfinite(squares) else math.nan
    return Part(name, count, sum(t.nbytes for t in tensors), rms, dtypes, is_tied)


def _metrics(contents: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the losses stored in the checkpoint: an epoch's in `metrics`, a state's in its curves."""
    found = dict(contents.get("metrics", {}))
    if points := contents.get("train_points"):
        found["train_loss"] = points[-1][1]
    if points := contents.get("validation_points"):
        found["validation_loss"] = points[-1][1]
        lowest = min(points, key=lambda point: math.inf if math.isnan(point[1]) else point[1])
        found |= {"lowest_validation_loss": lowest[1], "lowest_at_step": lowest[0]}
    for name in ("train", "validation"):
        if isinstance(loss := found.get(f"{name}_loss"), float):
            found[f"{name}_perplexity"] = calculate_perplexity_from_loss(loss)
    return found


def _provenance(contents: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
    """Returns the origin of the weights, as far as the file records it."""
    data = config.data
    found: dict[str, Any] = {**contents.get("versions", {}), "dataset": data.dataset, "seed": config.seed}
    if data.is_on_hub:
        found |= {"subset": data.subset, "split": data.split, "revision": data.revision}
    if "data" in contents:
        found["position"] = contents["data"]
    if "world_size" in contents:
        found["processes"] = contents["world_size"]
    if "machine" in contents:
        found["machine"] = contents["machine"]
    if "imported" in contents:
        found |= {"imported": contents["imported"], "dataset": None}
    return {**found, "init_from": contents.get("init_from")}


def _size(path: Path) -> tuple[int, int]:
    """Returns a checkpoint's size in bytes and the number of its pieces with a checksum."""
    if path.is_dir():
        files = [file for file in path.iterdir() if file.is_file()]
        return sum(file.stat().st_size for file in files), len(files) - 1  # the manifest has none
    return path.stat().st_size, checkpoint.entries(path)


def _tensors(tree: Any) -> Iterator[Tensor]:
    """Yields the tensors in nested dicts and lists, except scalars."""
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        for value in tree:
            yield from _tensors(value)
    elif isinstance(tree, Tensor) and tree.ndim:
        yield tree
