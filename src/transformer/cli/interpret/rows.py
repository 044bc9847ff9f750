"""The rows of tokens on which the habits of heads are measured: a text's, or random tokens that are repeated once."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from transformer.cli.formatting import counted
from transformer.interpret.in_context import familiar_rows, ordinary_tokens
from transformer.model import DecoderOnlyTransformer
from transformer.text import Tokenizer, prompt_ids
from transformer.text.local_files import read_documents

ROWS = 32
"""Rows at most; a text of more tokens is measured on its first ones."""
LENGTH = 128
"""Tokens in a row of a text, if the model's context is not shorter."""
TEXTS, WRITTEN = 8, 64
"""Texts that the model writes, to find the tokens that it knows, and tokens in each."""
REPEATED = 32
"""Random tokens in a row, before they are repeated."""


def habit_rows(model: DecoderOnlyTransformer, tokenizer: Tokenizer, text: Path | None) -> tuple[Tensor, str]:
    """Returns rows (B, T) int64, and a sentence about them. Raises ValueError for a text that is too short."""
    return repeated(model, tokenizer) if text is None else rows_of(model, tokenizer, text)


def repeated(model: DecoderOnlyTransformer, tokenizer: Tokenizer) -> tuple[Tensor, str]:
    """Random tokens, repeated once: nothing but the repetition can be predicted, so a habit shows alone."""
    length = min(REPEATED, model.config.max_seq_len // 2)
    if length < 2:
        raise ValueError(f"habits need a context of 4 tokens, and this model's is {model.config.max_seq_len}")
    rows = familiar_rows(written(model, tokenizer), ROWS, length)
    drawn = f"{ROWS} rows of {rows.shape[1] // 2} random tokens, drawn as often as the model writes them"
    return rows, f"Measured on {drawn}, and repeated once."


def written(model: DecoderOnlyTransformer, tokenizer: Tokenizer) -> Tensor:
    """Returns tokens (N,) that the model writes by itself.

    A model of letters has hardly seen most of the 256 bytes: on bytes drawn evenly it would show no habit at all.
    """
    start = torch.tensor([prompt_ids(tokenizer, "")] * TEXTS, device=model.device)
    generator = torch.Generator(model.device).manual_seed(0)
    texts = model.generate(start, max_new_tokens=WRITTEN, sampling_strategy="multinomial", generator=generator).cpu()
    ordinary = ordinary_tokens(tokenizer)
    found = texts[:, start.shape[1] :]
    found = found[torch.isin(found, ordinary)]
    return found if len(found.unique()) > 1 else ordinary  # nothing but end-of-text, for example


def rows_of(model: DecoderOnlyTransformer, tokenizer: Tokenizer, path: Path) -> tuple[Tensor, str]:
    """The first tokens of a text in rows of equal length, with end-of-text between documents."""
    length = min(LENGTH, model.config.max_seq_len)
    ids: list[int] = []
    is_whole = True
    for document in read_documents(path):
        if len(ids) >= ROWS * length:
            is_whole = False
            break
        ids += [*tokenizer.encode(document), tokenizer.eot_id]
    rows = min(ROWS, len(ids) // length)
    if rows == 0:  # one short row
        rows, length = 1, len(ids)
    if length < 3:
        raise ValueError(f"{path} has {len(ids)} tokens, too few to measure habits on: give a longer text")
    used = rows * length
    which = "all" if is_whole and used == len(ids) else f"the first {used:,}"
    told = f"Measured on {path.name}: {which} tokens, in {counted(rows, 'row')} of {length}."
    return torch.tensor(ids[:used]).view(rows, length), told
