"""The evaluate command; commands/evaluate_perplexity.py documents it."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from transformer.cli.console import console, printable
from transformer.cli.download_progress import fetch_numbers, notifier
from transformer.cli.evaluate.measure import Texts, baselines, score, text_notice, verdict, windows
from transformer.cli.evaluate.options import EvaluateOptions
from transformer.cli.formatting import counted
from transformer.cli.json_output import print_json
from transformer.cli.models import open_model, weight_format
from transformer.cli.progress import progress_bar
from transformer.data.eval_documents import Documents
from transformer.evaluation.statistics import DocumentScores
from transformer.perplexity import Evaluation
from transformer.training.checkpoint import LoadedModel, trained_on


def main(options: EvaluateOptions) -> None:
    loaded = open_model(
        options.checkpoint, options.device, weight_format(options.weights, options.int8), options.kernels
    )
    sizes = windows(options.measure, loaded)
    out = console(stderr=options.json)
    out.print(loaded.description, style="dim")
    with out.status(Text("reading the text")) as status:
        notify = notifier(out, lambda message: status.update(Text(f"fetching {fetch_numbers(message)}")))
        is_imported = "imported" in loaded.contents
        documents = Texts(options.measure, notify).of(loaded.config.data, loaded.tokenizer, is_imported)
    if notice := text_notice(loaded, documents, options.measure):
        out.print(notice)
    total = documents.num_tokens
    fewer = "; --max-tokens evaluates fewer" if options.measure.max_tokens is None else ""
    out.print(printable(f"{counted(total, 'token')} of {documents.name}{fewer}"), style="dim")
    started = time.perf_counter()
    with progress_bar(out, "evaluating") as progress:
        scores = score(loaded, documents, options.measure, lambda done: progress("evaluating", done, total))
    seconds = time.perf_counter() - started
    if options.json:
        print_json(report(loaded, documents, scores, sizes, seconds), indent=None)
    else:
        show(out, loaded, documents, scores, sizes, seconds)


def show(
    out: Console,
    loaded: LoadedModel,
    documents: Documents,
    scores: DocumentScores,
    sizes: tuple[int, int],
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
        f"windows of {sizes[0]} with a stride of {sizes[1]}; ±: standard error over documents; {seconds:.1f} s",
        style="dim",
    )


def report(
    loaded: LoadedModel, documents: Documents, scores: DocumentScores, sizes: tuple[int, int], seconds: float
) -> dict[str, Any]:
    """Returns all results as plain values for JSON."""
    result = scores.evaluation
    unigram, uniform = baselines(loaded, documents, result)
    is_known = documents.known is not None
    errors = (scores.loss_error, scores.perplexity_error, scores.bits_per_byte_error)
    return {
        "checkpoint": str(loaded.path), "text": documents.name, "trained_on": trained_on(loaded.contents),
        "encoding": loaded.tokenizer.name, "vocab_size": loaded.config.model.vocab_size,
        "context": sizes[0], "stride": sizes[1], "documents": len(scores), "tokens": result.tokens,
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
