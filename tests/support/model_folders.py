"""Tiny models as `transformers` saves them, with a tokenizer: folders that an import reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tiny_tokenizers import tokenizer_files
from transformer.interop.families import read_model
from transformer.interop.gguf_write import write_gguf
from transformer.interop.sources import open_source

CARD = "---\nlanguage: en\nlicense: apache-2.0\n---\n# A model of a test\n"
SIZES = {
    "vocab_size": 400, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": 0,
}  # fmt: skip
"""More ids than the tokenizer has, as in many models."""


def save_model(folder: Path, kind: str = "llama", dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """Saves a model of a family with fresh weights, larger than usual so that texts differ; returns the folder."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **changes})).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(folder)
    contents, settings = tokenizer_files("gpt2")
    (folder / "tokenizer.json").write_text(contents, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return folder


def save_gguf(folder: Path, path: Path, kind: str) -> Path:
    """Writes the model of a folder as a .gguf file in a number format; skips the test without the package gguf."""
    pytest.importorskip("gguf", reason="the package gguf writes the file")
    source = open_source(str(folder))
    model = read_model(source.settings, source.tensor, source.names, torch.float32)
    write_gguf(model, source.tokenizer, path, kind)  # type: ignore[arg-type]
    return path


def files_in(folder: Path) -> dict[str, bytes]:
    """The files of a folder by name, as StandInHub.add() takes them."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}
