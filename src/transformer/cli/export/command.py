"""The export command; commands/export.py documents it."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from transformer.cli.console import can_redraw, console
from transformer.cli.export.options import ExportOptions
from transformer.cli.models import open_model
from transformer.interop.hf_check import MismatchError, compare_with_transformers, has_transformers
from transformer.interop.hf_export import save_pretrained
from transformer.interop.hub_upload import upload
from transformer.interop.model_card import provenance
from transformer.planning.cost import readable
from transformer.training.checkpoint import LoadedModel


def main(options: ExportOptions) -> None:
    out = console()
    loaded = open_model(options.checkpoint, "cpu")
    out.print(loaded.description, style="dim")
    if options.format == "gguf":
        export_gguf(options, loaded, out)
    else:
        export_folder(options, loaded, out)


def export_gguf(options: ExportOptions, loaded: LoadedModel, out: Console) -> None:
    from transformer.interop.gguf_write import write_gguf  # needs the package gguf

    kind = options.kind or "f16"
    notes = write_gguf(loaded.model, loaded.tokenizer, options.path, kind, provenance(loaded))
    out.print(f"{options.path}: written for llama.cpp, matrices in {kind}, {readable(options.path.stat().st_size)}")
    for note in notes:
        out.print(f"note: {note}")


def export_folder(options: ExportOptions, loaded: LoadedModel, out: Console) -> None:
    settings = save_pretrained(loaded.model, loaded.tokenizer, options.path, provenance(loaded))
    size = sum(file.stat().st_size for file in options.path.iterdir())
    out.print(f"{options.path}: written as {settings['model_type']}, {readable(size)}")
    if options.compare:
        out.print(compared(options.path, loaded))
    if options.push_to is not None:
        repo = options.push_to.removeprefix("hf:")
        address = upload(options.path, repo, options.public, shows_progress=can_redraw(sys.stderr))
        out.print(f"uploaded to {address}")


def compared(folder: Path, loaded: LoadedModel) -> str:
    """Returns a sentence about the export in the other program. Raises MismatchError."""
    if not has_transformers():
        return (
            "not compared, because transformers is not installed: run `pip install transformers` and export again, "
            "into another folder"
        )
    try:
        found = compare_with_transformers(folder, loaded.model, loaded.tokenizer)
    except MismatchError as error:
        raise MismatchError(f"{folder} does not compute what {loaded.path} computes: {error}") from error
    return (
        f"transformers {found.version} loads it: the same token ids, the same logits (largest difference "
        f"{found.difference:.1g}), and {found.tokens} greedy tokens are equal"
    )
