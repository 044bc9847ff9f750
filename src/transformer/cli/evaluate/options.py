"""What `evaluate` and `compare` share: on which documents, in which windows, and what the numbers mean."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from transformer.config import DataConfig
from transformer.data.contracts import Notify, silent
from transformer.data.eval_documents import Documents, encode_documents, held_out_documents, training_counts
from transformer.evaluation.document_perplexity import score_documents, window_sizes
from transformer.evaluation.statistics import DocumentScores
from transformer.perplexity import Evaluation, unigram_nats
from transformer.text import Tokenizer, plain_documents, read_documents
from transformer.training.checkpoint import LoadedModel


@dataclass(frozen=True)
class MeasureOptions:
    """On which text, and how it is read."""

    dataset: str | None = None
    """Held-out text of this dataset: shakespeare, fineweb, hf:OWNER/NAME or a path. None: the model's own."""
    text_file: str | None = None
    """All of a text in its place: txt, md, jsonl, parquet, a folder of these, or - for standard input."""
    text_column: str | None = None
    """The field or column that holds the text in jsonl and parquet files. None: as in training, or text."""
    max_tokens: int | None = None
    """Tokens that are scored at most. None: all of --text-file, and of a dataset as many as training looks at."""
    context: int | None = None
    """Tokens in a window, the most that come before a token. None: as many as a row had in training."""
    stride: int | None = None
    """Tokens from one window's beginning to the next: fewer give more context, for more time. None: half a window."""
    batch_size: int = 16
    """Windows that go through the model at once."""

    def check(self) -> None:
        """Raises ValueError for what no model could be measured with."""
        if self.dataset is not None and self.text_file is not None:
            raise ValueError("--dataset and --text-file each name a text: give one of them")
        for name in ("max_tokens", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")

    def windows(self, loaded: LoadedModel) -> tuple[int, int]:
        """Returns context and stride for a model. Raises ValueError where it cannot read so."""
        context = loaded.config.data.seq_length if self.context is None else self.context
        return window_sizes(loaded.config.model.max_seq_len, context, self.stride)

    def data(self, trained_on: DataConfig) -> DataConfig:
        """Returns the dataset whose held-out text is meant, for a model that was trained on another or the same."""
        text_column = self.text_column or trained_on.text_column
        if self.dataset is None or self.dataset == trained_on.dataset:
            return replace(trained_on, text_column=text_column)
        return DataConfig(
            self.dataset,
            trained_on.encoding,
            validation_fraction=trained_on.validation_fraction,
            validation_tokens=trained_on.validation_tokens,
            text_column=self.text_column or DataConfig.text_column,
            cache_shards=trained_on.cache_shards,
            cache_gb=trained_on.cache_gb,
        ).check()


class Texts:
    """The documents that the options mean, encoded once for each dataset and encoding."""

    def __init__(self, options: MeasureOptions, tell: Notify = silent) -> None:
        self.options, self.tell = options, tell
        self._known: dict[object, Documents] = {}
        self._typed: list[str] | None = None

    def of(self, trained_on: DataConfig, tokenizer: Tokenizer) -> Documents:
        """Returns the documents for a model, in its encoding. Raises ValueError for a text that cannot be read."""
        data = self.options.data(trained_on)
        source = (
            self.options.text_file, data.dataset, data.subset, data.split, data.revision, data.text_column,
            data.cache_dir, data.validation_fraction, self.options.max_tokens or data.validation_tokens,
        )  # fmt: skip
        key = (source, repr(tokenizer.state()))
        if key not in self._known:
            if self.options.text_file is None:
                self._known[key] = held_out_documents(data, tokenizer, self.options.max_tokens, self.tell)
            else:
                name = "standard input" if self.options.text_file == "-" else self.options.text_file
                texts = self._texts(self.options.text_file, self.options.text_column or data.text_column)
                documents = encode_documents(texts, tokenizer, name, self.options.max_tokens)
                self._known[key] = replace(documents, known=training_counts(trained_on, tokenizer))
        return self._known[key]

    def _texts(self, path: str, text_column: str) -> Iterable[str]:
        if path != "-":
            return read_documents(Path(path), text_column)
        if self._typed is None:  # it can be read once
            self._typed = plain_documents(sys.stdin.buffer.read(), "standard input")
        return self._typed


def score(
    loaded: LoadedModel,
    documents: Documents,
    options: MeasureOptions,
    progress: Callable[[int], object] | None = None,
) -> DocumentScores:
    """Scores a model on documents in its encoding; `progress` is told the tokens scored so far."""
    context, stride = options.windows(loaded)
    return score_documents(
        loaded.model, documents.tokens, documents.text_bytes, loaded.tokenizer.eot_id,
        context=context, stride=stride, batch_size=options.batch_size, progress=progress,
    )  # fmt: skip


def baselines(loaded: LoadedModel, documents: Documents, score: Evaluation) -> tuple[Evaluation, Evaluation]:
    """Returns what two models that read nothing score: by how often each token comes, and knowing nothing."""
    known = None if documents.known is None else torch.from_numpy(documents.known)
    losses = unigram_nats(torch.from_numpy(documents.counts), known), math.log(loaded.config.model.vocab_size)
    unigram, uniform = (Evaluation(loss * score.tokens, score.tokens, score.text_bytes) for loss in losses)
    return unigram, uniform


def verdict(score: Evaluation, unigram: Evaluation, uniform: Evaluation, counted: bool) -> str:
    """Returns in words what a perplexity means beside the two models that read nothing.

    `counted`: the frequencies are of other text, so that a model might really have known them.
    """
    if not math.isfinite(score.loss):
        return "The loss is no finite number: the model's weights are spoilt."
    choices = unigram.perplexity / score.perplexity
    if score.loss >= uniform.loss:
        meaning = "this is no better than guessing."
    elif score.loss < unigram.loss:
        meaning = f"reading what comes before leaves {choices:,.1f} times fewer choices."
    elif counted:
        meaning = "the model does no better than these frequencies."
    else:
        meaning = "the model stays above it, which says little where a text is short for its vocabulary."
    return (
        f"On average as unsure as among {score.perplexity:,.1f} equally likely tokens. Knowing nothing leaves "
        f"{uniform.perplexity:,.0f}, knowing how often each comes {'' if counted else 'in this very text '}"
        f"{unigram.perplexity:,.1f}: {meaning} The text could be stored in {score.bits_per_byte / 8:.0%} of its size."
    )
