"""The export-page command; commands/export_page.py documents it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from transformer.cli.console import console
from transformer.cli.evaluate.measure import Texts, score
from transformer.cli.evaluate.options import MeasureOptions
from transformer.cli.export_page.links import lead_somewhere, source_address
from transformer.cli.export_page.options import ExportOptions, lesson_path
from transformer.cli.inlining import inlined
from transformer.cli.models import open_model
from transformer.interop.lesson_page import dequantised_model, export, exported_bytes, script
from transformer.kernels import accelerate
from transformer.training.checkpoint import LoadedModel, trained_on
from transformer.training.files import write_text

MODEL = "page/model.js"
LARGEST_MB = 64
"""Limit on the size of the HTML file, about 45 million parameters: a browser opens it within seconds."""


def main(options: ExportOptions) -> None:
    is_whole = options.out.suffix != ".js"
    loaded = open_model(options.checkpoint, "cpu")
    out = console()
    out.print(loaded.description, style="dim")
    expected = exported_bytes(loaded.config.model, loaded.tokenizer) + (len(page("").encode()) if is_whole else 0)
    check_size(expected, loaded)
    out.print(f"{options.out}: about {expected / 1e6:.2f} MB")
    exported = export(loaded.model, loaded.tokenizer, description(loaded))
    if options.measure:
        exported["about"] |= rounding(loaded, exported, out)
    model = script(exported)
    written = page(model) if is_whole else model
    write_text(options.out, written)
    advice = "; open it in a browser" if is_whole else ""
    out.print(f"{options.out}: written, {len(written.encode()) / 1e6:.2f} MB{advice}")


def check_size(expected: int, loaded: LoadedModel) -> None:
    """Raises ValueError for a page that is too large for a browser."""
    if expected > LARGEST_MB * 1e6:
        parameters = sum(loaded.model.parameter_counts().values())
        raise ValueError(
            f"the page would be {expected / 1e6:.0f} MB for {parameters:,} parameters, and the limit is {LARGEST_MB} "
            "MB, which a browser opens easily: choose a smaller model"
        )


def description(loaded: LoadedModel) -> dict[str, Any]:
    """Returns the facts about the model that the page shows: dataset, size, and training so far."""
    return {
        "dataset": Path(trained_on(loaded.contents)).name,
        "encoding": loaded.tokenizer.name,
        "parameters": sum(loaded.model.parameter_counts().values()),
        "step": loaded.contents["step"],
        "tokens_seen": loaded.contents["tokens"],
        "validation_loss": loaded.contents.get("metrics", {}).get("validation_loss"),
    }


def rounding(loaded: LoadedModel, exported: dict[str, Any], out: Console) -> dict[str, Any]:
    """Evaluates the model before and after rounding, as the evaluate command does; prints and returns the result."""
    documents = Texts(MeasureOptions()).of(loaded.config.data, loaded.tokenizer)
    found = {}
    for name, model in {"checkpoint": loaded.model, "rounded": accelerate(dequantised_model(exported))}.items():
        result = score(replace(loaded, model=model), documents, MeasureOptions()).evaluation
        found[name] = {"loss": result.loss, "perplexity": result.perplexity, "bits_per_byte": result.bits_per_byte}
        out.print(
            f"{name:<10} loss {result.loss:.5f}, perplexity {result.perplexity:.3f}, {result.bits_per_byte:.5f} bpb"
        )
    return {"validation": found}


def page(model: str, lesson: Path | None = None) -> str:
    """Returns the lesson as one text, with `model` in place of its own; its links lead somewhere from any folder.

    Errors are those of inlined().
    """
    lesson = lesson or lesson_path()
    root = lesson.parent
    return lead_somewhere(inlined(lesson, root, {MODEL: model}), source_address(root))
