"""Writes a model as a folder that `transformers` loads, and everything else that reads its format.

    config.json               the architecture that computes the same function, with its settings
    model.safetensors         the weights under its names; above 5 GB several files and an index
    tokenizer.json            an equal tokenizer, and tokenizer_config.json: its special tokens
    generation_config.json    the tokens that begin and end a text
    README.md                 the model card

families.py has the architectures. The folder appears when all of it is written, never in part.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transformer.interop.families import hf_settings, hf_weights
from transformer.interop.model_card import model_card
from transformer.interop.tensor_writer import LARGEST_FILE, write_tensors
from transformer.interop.tokenizer_json import tokenizer_files
from transformer.kernels.float16 import Float16Linear
from transformer.kernels.int8 import Int8Linear
from transformer.model import DecoderOnlyTransformer
from transformer.text import Tokenizer
from transformer.training.files import new_folder, write_text


def save_pretrained(
    model: DecoderOnlyTransformer,
    tokenizer: Tokenizer,
    folder: Path,
    provenance: Mapping[str, str],
    dtype: torch.dtype | None = None,
    largest_file: int = LARGEST_FILE,
) -> dict[str, Any]:
    """Writes the folder, which must be empty or not exist, and returns its config.json.

    provenance: for the model card, as model_card.provenance() returns it. dtype: the number format of the weights in
    the folder (None: the model's own), see stored_dtype(). largest_file: bytes of weights in a file.
    Raises ValueError, before anything is written, for a model that no architecture expresses, and OSError.
    """
    check_weights(model)
    dtype = dtype or model.head.weight.dtype
    settings = {**hf_settings(model.config, str(dtype).removeprefix("torch.")), **_ends(tokenizer)}
    files = {
        "config.json": settings,
        "generation_config.json": _ends(tokenizer),
        **tokenizer_files(tokenizer, model.config.max_seq_len),
    }
    with new_folder(folder) as inside:
        for name, content in files.items():
            write_text(inside / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        weights = (inside, lambda: ((name, weight.to(dtype)) for name, weight in hf_weights(model)), largest_file)
        write_text(inside / "README.md", model_card(folder.name, provenance, settings, write_tensors(*weights)))
    return settings


def check_weights(model: DecoderOnlyTransformer) -> None:
    """Raises ValueError for weights that were rounded: their format is this project's own."""
    if any(isinstance(module, Int8Linear | Float16Linear) for module in model.modules()):
        raise ValueError("the weights are rounded for generation: load the model with weights='float32' to export it")


def stored_dtype(weights: Iterable[Tensor]) -> torch.dtype:
    """Returns the number format of a checkpoint's weights: models compute in float32 whatever their file holds."""
    formats = {weight.dtype for weight in weights}
    return formats.pop() if len(formats) == 1 else torch.float32


def _ends(tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns the ids that begin and end a text. Our own encodings have one for both: end-of-text."""
    first = tokenizer.eot_id if tokenizer.bos_id is None else tokenizer.bos_id
    ends = list(tokenizer.stop_ids)
    return {"bos_token_id": first, "eos_token_id": ends if len(ends) > 1 else ends[0]}
