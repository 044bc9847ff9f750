"""The export command; commands/export.py documents it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from transformer.cli.console import can_redraw, console
from transformer.cli.export.options import ExportOptions
from transformer.cli.models import open_model
from transformer.interop.hf_check import Agreement, MismatchError, compare_with_transformers
from transformer.interop.hf_export import save_pretrained, stored_dtype
from transformer.interop.hub_upload import upload
from transformer.interop.model_card import provenance
from transformer.interop.onnx_export import compare_with_onnxruntime, write_onnx
from transformer.model import DecoderOnlyTransformer
from transformer.planning.cost import readable
from transformer.text import Tokenizer
from transformer.training.checkpoint import LoadedModel
from transformer.training.files import check_new_folder

Compare = Callable[[Path, DecoderOnlyTransformer, Tokenizer], Agreement]


def main(options: ExportOptions) -> None:
    out = console()
    if options.format == "hf":
        check_new_folder(options.path)  # before a large model is loaded
    elif options.path.exists():
        raise ValueError(f"{options.path} exists already: give the name of a new file")
    loaded = open_model(options.checkpoint, "cpu")
    out.print(loaded.description, style="dim")
    {"hf": export_folder, "gguf": export_gguf, "onnx": export_onnx}[options.format](options, loaded, out)


def export_gguf(options: ExportOptions, loaded: LoadedModel, out: Console) -> None:
    from transformer.interop.gguf_write import write_gguf  # needs the package gguf

    kind = options.kind or "f16"
    notes = write_gguf(loaded.model, loaded.tokenizer, options.path, kind, provenance(loaded))
    out.print(f"{options.path}: written for llama.cpp, matrices in {kind}, {readable(options.path.stat().st_size)}")
    for note in notes:
        out.print(f"note: {note}")


def export_onnx(options: ExportOptions, loaded: LoadedModel, out: Console) -> None:
    write_onnx(loaded.model, loaded.tokenizer, options.path)
    out.print(f"{options.path}: written with a key-value cache, {readable(options.path.stat().st_size)}")
    if options.compare:
        out.print(compared("onnxruntime", compare_with_onnxruntime, options.path, loaded))


def export_folder(options: ExportOptions, loaded: LoadedModel, out: Console) -> None:
    dtype = stored_dtype(loaded.contents["model"].values())
    settings = save_pretrained(loaded.model, loaded.tokenizer, options.path, provenance(loaded), dtype)
    size = sum(file.stat().st_size for file in options.path.iterdir())
    out.print(f"{options.path}: written as {settings['model_type']}, {readable(size)}")
    if options.compare:
        out.print(compared("transformers", compare_with_transformers, options.path, loaded))
    if options.push_to is not None:
        repo = options.push_to.removeprefix("hf:")
        address = upload(options.path, repo, options.public, shows_progress=can_redraw(sys.stderr))
        out.print(f"uploaded to {address}")


def compared(program: str, compare: Compare, path: Path, loaded: LoadedModel) -> str:
    """Returns a sentence about the export in the other program. Raises MismatchError."""
    if importlib.util.find_spec(program) is None:
        return (
            f"not compared, because {program} is not installed: run `pip install {program}` and export again, under "
            "another name"
        )
    try:
        found = compare(path, loaded.model, loaded.tokenizer)
    except MismatchError as error:
        raise MismatchError(f"{path} does not compute what {loaded.path} computes: {error}") from error
    return (
        f"{program} {found.version} loads it: the same logits (largest difference {found.difference:.1g}), and "
        f"{found.tokens} greedy tokens are equal"
    )
