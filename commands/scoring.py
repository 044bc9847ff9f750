"""Measures checkpoints: all those of one dataset on the same held-out documents, whatever their encodings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cli import one_line
from transformer import checkpoint
from transformer.checkpoint import CheckpointError
from transformer.config import DataConfig, TrainConfig
from transformer.dataset import Tell
from transformer.document_scores import score_documents
from transformer.documents import Documents, held_out_documents
from transformer.fineweb_dataset import encoding_id
from transformer.perplexity import shared
from transformer.ranking import Measured, Ranking, rank
from transformer.runtime.device import pick_device
from transformer.text import Tokenizer, tokenizer_from_state

Show = Callable[[str, int, int], object]
"""Told which checkpoint is read, and how many tokens of how many are scored in all."""


@dataclass(frozen=True)
class Candidate:
    """A checkpoint to be measured, as far as it is known without its weights."""

    path: Path
    config: TrainConfig
    tokenizer: Tokenizer

    @property
    def text(self) -> DataConfig:
        """What its held-out documents follow from; not the commit, since the split goes by the documents' own hash."""
        data, names = self.config.data, ("dataset", "subset", "split", "text_column", "validation_fraction")
        return DataConfig(**{name: getattr(data, name) for name in names})


class Scoring:
    """Measures checkpoints; those that cannot be are left out, with a line that says why."""

    def __init__(self, device: str, stride: int | None, max_tokens: int | None, show: Show, tell: Tell) -> None:
        """Raises ValueError where there is no such device."""
        self.device, self.stride, self.max_tokens = pick_device(device), stride, max_tokens
        self.show, self.tell = show, tell
        self.left_out: list[str] = []
        self.done = self.total = 0

    def rankings(self, paths: Iterable[Path]) -> list[Ranking]:
        """Returns a ranking for each dataset, of what could be measured."""
        groups: dict[DataConfig, list[Candidate]] = {}
        for path in paths:
            try:
                candidate = look(path)
            except (ValueError, OSError) as error:
                self.leave_out([path], error)
            else:
                groups.setdefault(candidate.text, []).append(candidate)
        texts = {text: self.open(group) for text, group in groups.items()}
        readings = {
            text: [(one, documents) for one in group if (documents := texts[text].get(encoding_id(one.tokenizer)))]
            for text, group in groups.items()
        }
        self.total = sum(documents.num_tokens for group in readings.values() for _, documents in group)
        found = [self.rank(text.dataset, group) for text, group in readings.items()]
        return [ranking for ranking in found if ranking is not None]

    def open(self, group: Sequence[Candidate]) -> dict[str, Documents]:
        """Returns the documents in each encoding of the group, as many as all have; none where they cannot be read."""
        newest = max(group, key=lambda one: one.path.stat().st_mtime)  # whose commit is likeliest to be here
        limit = self.max_tokens or max(one.config.data.validation_tokens for one in group)
        found: dict[str, Documents] = {}
        try:
            for one in group:
                if (encoding := encoding_id(one.tokenizer)) not in found:
                    found[encoding] = held_out_documents(newest.config.data, one.tokenizer, limit, self.tell)
        except (ValueError, OSError) as error:
            self.leave_out([one.path for one in group], error)
            return {}
        count = min(len(documents.tokens) for documents in found.values())
        return {
            encoding: replace(documents, tokens=documents.tokens[:count], text_bytes=documents.text_bytes[:count])
            for encoding, documents in found.items()
        }

    def rank(self, dataset: str, group: Sequence[tuple[Candidate, Documents]]) -> Ranking | None:
        """Measures checkpoints of one dataset and ranks them by the documents that all encodings have whole."""
        measured = [one for candidate, documents in group if (one := self.measure(candidate, documents))]
        scores = shared([one.scores for one in measured])
        if measured and not len(scores[0]):
            limit = f"--max-tokens {self.max_tokens}" if self.max_tokens else "the usual --max-tokens"
            error = ValueError(f"no document fits {limit} in every encoding: a larger one compares them")
            self.leave_out([one.path for one in measured], error)
            return None
        same = [replace(one, scores=cut) for one, cut in zip(measured, scores, strict=True)]
        return rank(dataset, same) if same else None

    def measure(self, candidate: Candidate, documents: Documents) -> Measured | None:
        """Scores one checkpoint; None where that cannot be."""
        before = self.done
        self.done += documents.num_tokens
        try:
            loaded = checkpoint.load_model(candidate.path, self.device)
            scores = score_documents(
                loaded.model, documents.tokens, documents.text_bytes, loaded.tokenizer.eot_id, stride=self.stride,
                progress=lambda scored: self.show(str(candidate.path), before + scored, self.total),
            )  # fmt: skip
            if not math.isfinite(scores.evaluation.loss):
                raise ValueError("its loss is not finite")
        except (ValueError, OSError) as error:
            self.leave_out([candidate.path], error)
            return None
        contents = loaded.contents
        return Measured(candidate.path, loaded.tokenizer.name, contents.get("epoch"), contents["tokens"], scores)

    def leave_out(self, paths: Iterable[Path], error: Exception) -> None:
        reason = one_line(str(error))
        self.left_out += [reason if str(path) in reason else f"{path}: {reason}" for path in paths]


def look(path: Path) -> Candidate:
    """Returns a checkpoint without reading its weights. Raises CheckpointError where it is damaged or foreign."""
    try:
        contents = checkpoint.glance(path)
        return Candidate(path, TrainConfig.from_dict(contents["config"]), tokenizer_from_state(contents["tokenizer"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        checkpoint.load_model(path)  # says more about what is wrong
        raise CheckpointError(f"{path} is damaged or not a checkpoint") from error
