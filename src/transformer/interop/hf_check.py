"""Loads an exported folder with `transformers`, and compares: the ids of texts, the logits, and the greedy text.

The other program is not needed to export, and is imported only here. Both models compute in float32 (or float64), so
that the format of the weights does not hide an error.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transformer.model import DecoderOnlyTransformer
from transformer.text import Tokenizer, prompt_ids
from transformer.training.filling import model_of

TEXTS = ("ROMEO: But soft, what light?", "  def f(x):\n\treturn x ** 2  # naïve, 10,000 \N{GRINNING FACE}\n\n")
NEW_TOKENS = 32
"""Length of the greedy text that is compared."""
RELATIVE_ERROR = 1e-4
"""Largest difference of logits, relative to the largest logit. Sums in another order differ by about 1e-6 of it."""


class MismatchError(ValueError):
    """The other program computes something else from the exported folder."""


@dataclass(frozen=True)
class Agreement:
    """The other program's version, the largest difference of logits, and the number of equal greedy tokens."""

    version: str
    difference: float
    tokens: int


@torch.no_grad()
def compare_with_transformers(folder: Path, model: DecoderOnlyTransformer, tokenizer: Tokenizer) -> Agreement:
    """Compares the model with the one in the folder that was exported from it. Raises MismatchError."""
    transformers: Any = importlib.import_module("transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    own = model if model.head.weight.dtype in (torch.float32, torch.float64) else in_float32(model)
    other = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=own.head.weight.dtype, local_files_only=True
    ).eval()
    compare_tokenizers(transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True), tokenizer)
    longest = max(1, own.config.max_seq_len // 2)
    ids = [prompt_ids(tokenizer, text)[:longest] for text in TEXTS]
    found = [compare_text(own, other, torch.tensor([row], device=own.device), tokenizer) for row in ids]
    return Agreement(
        transformers.__version__, max(difference for difference, _ in found), sum(count for _, count in found)
    )


def in_float32(model: DecoderOnlyTransformer) -> DecoderOnlyTransformer:
    """Returns a plain model in float32, whose table of positions is not rounded; float32 weights are shared with it."""
    return model_of(model.config, model.state_dict(), model.device).eval()


def compare_tokenizers(other: Any, tokenizer: Tokenizer) -> None:
    """Raises MismatchError for texts that the other tokenizer encodes or decodes in another way."""
    for text in TEXTS:
        ids = tokenizer.encode(text)
        if other.encode(text, add_special_tokens=False) != ids:
            raise MismatchError(f"transformers encodes {text!r} differently from {tokenizer.name}")
        if other.decode(ids, clean_up_tokenization_spaces=False) != tokenizer.decode(ids):
            raise MismatchError(f"transformers decodes {text!r} differently from {tokenizer.name}")


@torch.no_grad()
def compare_text(model: DecoderOnlyTransformer, other: Any, tokens: Tensor, tokenizer: Tokenizer) -> tuple[float, int]:
    """Returns the largest difference of the logits of tokens (1, T) int64, and the number of equal greedy tokens.

    Two tokens whose logits differ by less than the rounding are equally good: there the greedy texts may part. Raises
    MismatchError.
    """
    other = other.to(model.device)
    logits = model(tokens)  # (1, T, V)
    difference = float((logits - other(tokens).logits).abs().max())
    allowed = RELATIVE_ERROR * max(1.0, float(logits.abs().max()))
    if not difference <= allowed:
        raise MismatchError(f"the logits of transformers differ by {difference:.3g}; rounding allows {allowed:.3g}")
    limit = min(NEW_TOKENS, model.config.max_seq_len - tokens.shape[1])
    ours = model.generate(tokens, max_new_tokens=limit, stop_ids=tokenizer.stop_ids)[0].tolist()
    theirs = other.generate(tokens, max_new_tokens=limit, do_sample=False, repetition_penalty=1.0)[0].tolist()
    start = tokens.shape[1]
    equal = next((at for at, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), len(ours))
    if ours != theirs:
        last = model(torch.tensor([ours[:equal]], device=model.device))[0, -1]  # (V,)
        parted = [row[equal] for row in (ours, theirs) if equal < len(row)]
        if len(parted) < 2 or abs(float(last[parted[0]] - last[parted[1]])) > allowed:
            raise MismatchError(f"the greedy text of transformers is another one from its token {equal - start + 1} on")
    return difference, equal - start
