"""The evaluate command; commands/evaluate_perplexity.py documents it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from transformer.cli.console import console
from transformer.cli.download_progress import fetch_numbers, notifier
from transformer.cli.evaluate.options import MeasureOptions, Texts, baselines, score, verdict
from transformer.cli.json_output import print_json
from transformer.cli.models import open_model
from transformer.cli.options import parse
from transformer.data.eval_documents import Documents
from transformer.evaluation.statistics import DocumentScores
from transformer.kernels import Kernels
from transformer.perplexity import Evaluation
from transformer.training.checkpoint import LoadedModel


@dataclass(frozen=True)
class EvaluateOptions:
    """Evaluate a checkpoint on held-out text, or on a text of your own: perplexity and bits per byte."""

    checkpoint: Path | None = None
    """The checkpoint to evaluate; "best" or FOLDER/best: the one with the lowest validation loss. None: the latest."""
    measure: MeasureOptions = field(default_factory=MeasureOptions)
    int8: bool = False
    """Evaluate the model with weights rounded to 8 bits, as in `generate --int8`."""
    kernels: Kernels = "auto"
    """auto: faster equivalents of core functions. plain: the code of the core files."""
    json: bool = False
    """Print one JSON object with all digits, and nothing else, on standard output."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


def main(arguments: Sequence[str]) -> None:
    options = parse(EvaluateOptions, arguments, "evaluate", check=lambda options: options.measure.check())
    loaded = open_model(options.checkpoint, options.device, options.int8, options.kernels)
    windows = options.measure.windows(loaded)
    out = console(stderr=options.json)
    out.print(loaded.description, style="dim")
    with out.status(Text("reading the text")) as status:
        notify = notifier(out, lambda message: status.update(Text(f"fetching {fetch_numbers(message)}")))
        documents = Texts(options.measure, notify).of(loaded.config.data, loaded.tokenizer)
    started = time.perf_counter()
    with bar(out, documents.num_tokens) as progress:
        scores = score(loaded, documents, options.measure, progress)
    seconds = time.perf_counter() - started
    if options.json:
        print_json(report(loaded, documents, scores, windows, seconds), indent=None)
    else:
        show(out, loaded, documents, scores, windows, seconds)


@contextmanager
def bar(out: Console, total: int) -> Iterator[Any]:
    """Shows a progress bar on a terminal; yields a callback that takes the number of tokens done."""
    columns = (TextColumn("evaluating"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        task = progress.add_task("evaluating", total=total)
        yield lambda done: progress.update(task, completed=done)


def show(
    out: Console,
    loaded: LoadedModel,
    documents: Documents,
    scores: DocumentScores,
    windows: tuple[int, int],
    seconds: float,
) -> None:
    """Prints the numbers and an explanation."""
    result = scores.evaluation
    others = baselines(loaded, documents, result)
    table = Table(title=documents.name, title_justify="left")
    for name in ("", "model", "±", "unigram baseline", "uniform baseline"):
        table.add_column(name, justify="right" if name else "left")
    rows = [("loss", scores.loss_error, 4), ("perplexity", scores.perplexity_error, 2)]
    for name, error, digits in [*rows, ("bits per byte", scores.bits_per_byte_error, 4)]:
        attribute = name.replace(" ", "_")
        values = [f"{getattr(model, attribute):,.{digits}f}" for model in (result, *others)]
        table.add_row(name, values[0], "" if error is None else f"{error:,.{digits}f}", *values[1:])
    out.print(table)
    out.print(verdict(result, *others, documents.known is not None))
    documents_scored = f"{len(scores):,} document{'s' * (len(scores) != 1)}"
    out.print(
        f"{result.tokens:,} tokens in {documents_scored}, {result.text_bytes:,} bytes, each document by itself in "
        f"windows of {windows[0]} with a stride of {windows[1]}; ±: standard error over documents; {seconds:.1f} s",
        style="dim",
    )


def report(
    loaded: LoadedModel, documents: Documents, scores: DocumentScores, windows: tuple[int, int], seconds: float
) -> dict[str, Any]:
    """Returns all results as plain values for JSON."""
    result = scores.evaluation
    unigram, uniform = baselines(loaded, documents, result)
    is_known = documents.known is not None
    errors = (scores.loss_error, scores.perplexity_error, scores.bits_per_byte_error)
    return {
        "checkpoint": str(loaded.path), "text": documents.name, "trained_on": loaded.config.data.dataset,
        "encoding": loaded.tokenizer.name, "vocab_size": loaded.config.model.vocab_size,
        "context": windows[0], "stride": windows[1], "documents": len(scores), "tokens": result.tokens,
        "bytes": result.text_bytes, "seconds": seconds, "nats": result.nats, **values(result),
        "standard_error": dict(zip(values(result), errors, strict=True)),
        "uniform": values(uniform),
        "unigram": {**values(unigram), "counted_in": "training text" if is_known else "the text itself"},
        "verdict": verdict(result, unigram, uniform, is_known),
    }  # fmt: skip


def values(score: Evaluation) -> dict[str, float]:
    """Returns loss, perplexity and bits per byte."""
    names = ("loss", "perplexity", "bits_per_byte")
    return {name: getattr(score, name) for name in names}
