"""Evaluates checkpoints: all those of one dataset on the same held-out documents, whatever their encodings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transformer.cli.console import one_line
from transformer.cli.evaluate.measure import Texts, score, text_notice
from transformer.cli.evaluate.options import MeasureOptions
from transformer.cli.models import open_model
from transformer.cli.progress import Show
from transformer.config import Kernels, TrainConfig
from transformer.data.contracts import Notify
from transformer.data.eval_documents import Documents
from transformer.evaluation.ranking import Measured, Ranking, rank
from transformer.evaluation.statistics import common_documents
from transformer.fineweb_dataset import encoding_id
from transformer.text import Tokenizer, tokenizer_from_state
from transformer.training import checkpoint
from transformer.training.checkpoint import CheckpointError
from transformer.training.device import pick_device


@dataclass(frozen=True)
class Candidate:
    """A checkpoint to be evaluated: everything but its weights."""

    path: Path
    config: TrainConfig
    tokenizer: Tokenizer

    def text(self, options: MeasureOptions) -> object:
        """Returns the key of its documents, without the commit: the split depends on the documents' own hash."""
        if options.text_file is not None:
            return options.text_file
        data = options.data(self.config.data)
        return data.dataset, data.subset, data.split, data.text_column, data.validation_fraction


class Scoring:
    """Evaluates checkpoints. Those that cannot be evaluated are left out, with the reason in one line."""

    def __init__(self, options: MeasureOptions, device: str, kernels: Kernels, show: Show, notify: Notify) -> None:
        """Raises ValueError if there is no such device."""
        self.options, self.device, self.kernels = options, pick_device(device).type, kernels
        self.show, self.notify = show, notify
        self.left_out: list[str] = []
        self.done = self.total = 0

    def rankings(self, paths: Iterable[Path]) -> list[Ranking]:
        """Returns a ranking for each text."""
        groups: dict[object, list[Candidate]] = {}
        for path in paths:
            try:
                candidate = candidate_at(path)
            except (ValueError, OSError) as error:
                self.leave_out([path], error)
            else:
                groups.setdefault(candidate.text(self.options), []).append(candidate)
        texts = {text: self.open(group) for text, group in groups.items()}
        readings = {
            text: [(one, documents) for one in group if (documents := texts[text].get(encoding_id(one.tokenizer)))]
            for text, group in groups.items()
        }
        self.total = sum(documents.num_tokens for group in readings.values() for _, documents in group)
        found = [self.rank(group) for group in readings.values() if group]
        return [ranking for ranking in found if ranking is not None]

    def open(self, group: Sequence[Candidate]) -> dict[str, Documents]:
        """Returns the documents in each encoding of the group, the same number of each; {} if they cannot be read."""
        newest = max(group, key=lambda one: one.path.stat().st_mtime)  # its commit is most likely in the cache
        options = self.options
        if options.text_file is None and options.max_tokens is None:
            options = replace(options, max_tokens=max(one.config.data.validation_tokens for one in group))
        texts, found = Texts(options, self.notify), {}
        try:
            for one in group:
                found[encoding_id(one.tokenizer)] = texts.of(newest.config.data, one.tokenizer)
        except (ValueError, OSError) as error:
            self.leave_out([one.path for one in group], error)
            return {}
        count = min(len(documents.tokens) for documents in found.values())
        return {
            encoding: replace(documents, tokens=documents.tokens[:count], text_bytes=documents.text_bytes[:count])
            for encoding, documents in found.items()
        }

    def rank(self, group: Sequence[tuple[Candidate, Documents]]) -> Ranking | None:
        """Evaluates checkpoints on one text and ranks them by the documents that are complete in all encodings."""
        measured = [one for candidate, documents in group if (one := self.measure(candidate, documents))]
        scores = common_documents([one.scores for one in measured])
        if measured and not len(scores[0]):
            limit = f"--max-tokens {self.options.max_tokens}" if self.options.max_tokens else "the usual --max-tokens"
            error = ValueError(f"no document fits {limit} in every encoding: a larger one compares them")
            self.leave_out([one.path for one in measured], error)
            return None
        same = [replace(one, scores=cut) for one, cut in zip(measured, scores, strict=True)]
        return rank(group[0][1].name, same) if same else None

    def measure(self, candidate: Candidate, documents: Documents) -> Measured | None:
        """Evaluates one checkpoint; None if that fails."""
        before = self.done
        self.done += documents.num_tokens
        self.show(str(candidate.path), before, self.total)
        try:
            loaded = open_model(candidate.path, self.device, kernels=self.kernels)
            if notice := text_notice(loaded, documents, self.options):
                self.notify(notice)
            scores = score(
                loaded, documents, self.options, lambda done: self.show(str(candidate.path), before + done, self.total)
            )
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


def candidate_at(path: Path) -> Candidate:
    """Returns a checkpoint without reading its weights. Raises CheckpointError if it is damaged or no checkpoint."""
    try:
        contents = checkpoint.peek(path)
        return Candidate(path, TrainConfig.from_dict(contents["config"]), tokenizer_from_state(contents["tokenizer"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        checkpoint.load_model(path)  # raises a more precise error
        raise CheckpointError(f"{path} is damaged or not a checkpoint") from error
