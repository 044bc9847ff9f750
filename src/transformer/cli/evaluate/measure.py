"""What `evaluate` and `compare` share: documents and windows, baselines, an explanation of the result."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch

from transformer.cli.evaluate.options import MeasureOptions
from transformer.config import DataConfig
from transformer.data.contracts import Notify, silent
from transformer.data.eval_documents import Documents, encode_documents, held_out_documents, training_counts
from transformer.evaluation.document_perplexity import score_documents, window_sizes
from transformer.evaluation.statistics import DocumentScores
from transformer.perplexity import Evaluation, unigram_nats
from transformer.text import Tokenizer, plain_documents, read_documents
from transformer.training.checkpoint import LoadedModel
from transformer.training.same_text import has_changed


class Texts:
    """The documents selected by the options, encoded once for each dataset and encoding."""

    def __init__(self, options: MeasureOptions, notify: Notify = silent) -> None:
        self.options, self.notify = options, notify
        self._known: dict[object, Documents] = {}
        self._standard_input: list[str] | None = None

    def of(self, trained_on: DataConfig, tokenizer: Tokenizer, is_imported: bool = False) -> Documents:
        """Returns the documents for a model, in its encoding. Raises ValueError for a text that cannot be read.

        is_imported: the text on which the model was trained is not known; its tokens are not counted.
        """
        data = self.options.data(trained_on)
        source = (
            self.options.text_file, data.dataset, data.subset, data.split, data.revision, data.text_column,
            data.cache_dir, data.validation_fraction, self.options.max_tokens or data.validation_tokens,
        )  # fmt: skip
        key = (source, repr(tokenizer.state()))
        if key not in self._known:
            if self.options.text_file is None:
                self._known[key] = held_out_documents(data, tokenizer, self.options.max_tokens, self.notify)
            else:
                name = "standard input" if self.options.text_file == "-" else self.options.text_file
                texts = self._texts(self.options.text_file, self.options.text_column or data.text_column)
                documents = encode_documents(texts, tokenizer, name, self.options.max_tokens)
                known = None if is_imported else training_counts(trained_on, tokenizer)
                self._known[key] = replace(documents, known=known)
        return self._known[key]

    def _texts(self, path: str, text_column: str) -> Iterable[str]:
        if path != "-":
            return read_documents(Path(path), text_column, self.notify)
        if self._standard_input is None:  # can be read only once
            self._standard_input = plain_documents(sys.stdin.buffer.read(), "standard input")
        return self._standard_input


def windows(options: MeasureOptions, loaded: LoadedModel) -> tuple[int, int]:
    """Returns context and stride for a model. Raises ValueError if they exceed its context."""
    context = loaded.config.data.seq_length if options.context is None else options.context
    return window_sizes(loaded.config.model.max_seq_len, context, options.stride)


def score(
    loaded: LoadedModel,
    documents: Documents,
    options: MeasureOptions,
    progress: Callable[[int], object] | None = None,
) -> DocumentScores:
    """Evaluates a model on documents in its encoding; `progress` receives the number of tokens done."""
    context, stride = windows(options, loaded)
    tokenizer = loaded.tokenizer
    first = tokenizer.eot_id if tokenizer.bos_id is None else tokenizer.bos_id
    return score_documents(
        loaded.model, documents.tokens, documents.text_bytes, first,
        context=context, stride=stride, batch_size=options.batch_size, progress=progress,
    )  # fmt: skip


def text_notice(loaded: LoadedModel, documents: Documents, options: MeasureOptions) -> str | None:
    """Returns a line if the held-out documents are those of the run's dataset, which has changed since.

    And for an imported model, if no text was chosen.
    """
    trained_on = loaded.config.data
    if "imported" in loaded.contents:
        is_chosen = options.dataset is not None or options.text_file is not None
        line = f"{loaded.path} does not say on which text it was trained: the bundled plays are read; --dataset chooses"
        return None if is_chosen else line
    if options.data(trained_on).dataset != trained_on.dataset or not has_changed(documents.digest, loaded.contents):
        return None
    return (
        f"{trained_on.dataset} has changed since {loaded.path} was saved: the model may have been trained on this text"
    )


def baselines(loaded: LoadedModel, documents: Documents, score: Evaluation) -> tuple[Evaluation, Evaluation]:
    """Returns the scores of two baselines without context: unigram (token frequencies) and uniform."""
    known = None if documents.known is None else torch.from_numpy(documents.known)
    losses = unigram_nats(torch.from_numpy(documents.counts), known), math.log(loaded.config.model.vocab_size)
    unigram, uniform = (Evaluation(loss * score.tokens, score.tokens, score.text_bytes) for loss in losses)
    return unigram, uniform


def verdict(score: Evaluation, unigram: Evaluation, uniform: Evaluation, counted: bool) -> str:
    """Returns an explanation of the perplexity, compared with the two baselines.

    `counted`: the unigram frequencies come from the training text, not from the evaluated text itself.
    """
    if not math.isfinite(score.loss):
        return "The loss is not a finite number: the model's weights are damaged."
    choices = unigram.perplexity / score.perplexity
    if score.loss >= uniform.loss:
        meaning = "the model is no better than the uniform baseline."
    elif score.loss < unigram.loss:
        meaning = f"the context reduces the choices by a factor of {choices:,.1f}."
    elif counted:
        meaning = "the model is no better than these frequencies."
    else:
        meaning = "the model does not beat this baseline; on a short text that means little."
    return (
        f"On average the model is as uncertain as a choice among {score.perplexity:,.1f} equally likely tokens. The "
        f"uniform baseline chooses among {uniform.perplexity:,.0f}, the unigram baseline (token frequencies of the "
        f"{'training text' if counted else 'evaluated text'}) among {unigram.perplexity:,.1f}: {meaning} The model "
        f"could compress the text to {score.bits_per_byte / 8:.0%} of its size."
    )
