"""A report about one prompt: everything that the pictures of page/inside/ show, as values for JSON.

    layers, heads     L and H; a head is named layer.head, both from 0
    chosen            the head that the pictures show first: [layer, head]
    prompt            tokens: {"id", "text", "bytes" if they are no whole character, "isEnd" for end-of-text}
    next              the most likely next tokens: {"piece", "probability"}
    attention         the weights of every head, as pack() makes them
    results           [layer][head], after the last token: {"key", "weight"}: the position that it attends to most
    habits            measured; kinds: [{"name", "meaning", "scores" (L, H), "errors" (L, H), "even"}]

A number that does not exist is None. Numbers are rounded to DIGITS decimals.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from transformer.config import ModelConfig
from transformer.generation import eval_mode
from transformer.interpret.heads import Habit, strongest
from transformer.interpret.question import Question
from transformer.model import DecoderOnlyTransformer
from transformer.text import Tokenizer

TOP = 5
"""Tokens in a list of the most likely ones."""
DIGITS = 5
FULL = 65_535
"""The whole number that stands for an attention weight of 1."""
MEANING = {
    "previous token": "Attention to the token before.",
    "first token": "Attention to the first token of the row, where a head with nothing to do often rests.",
    "duplicate token": "Attention to earlier copies of the token.",
    "induction": "Attention to what followed an earlier copy of the token: the first half of copying it.",
}


def prompt_report(model: DecoderOnlyTransformer, tokenizer: Tokenizer, question: Question) -> dict[str, Any]:
    """Returns the parts of a report that belong to a prompt: all but `habits` and `chosen`. check() has passed."""
    read = Reader(tokenizer)
    tokens = torch.tensor([question.prompt], device=model.device)
    with eval_mode(model), torch.no_grad():
        probabilities = model.next_logits(tokens)[0].float().softmax(-1)
        weights = torch.stack(model.attention_weights(tokens))[:, 0]  # (L, H, T, T)
    most = weights[:, :, -1].max(-1)  # (L, H)
    return {
        "prompt": [read.piece(token) for token in question.prompt],
        "next": read.most_likely(probabilities),
        "attention": pack(weights),
        "results": [
            [{"key": key, "weight": weight} for key, weight in zip(*row, strict=True)]
            for row in zip(most.indices.tolist(), rounded(most.values), strict=True)
        ],
    }


def habits_report(habits: Mapping[str, Habit], measured: str) -> dict[str, Any]:
    """Returns the part `habits`; `measured` says in a sentence on which rows they were measured."""
    kinds = [
        {
            "name": name,
            "meaning": MEANING[name],
            "scores": rounded(habit.score),
            "errors": rounded(habit.error),
            "even": rounded(torch.tensor(habit.even)),
        }
        for name, habit in habits.items()
    ]
    return {"measured": measured, "kinds": kinds}


def chosen_head(question: Question | None, habits: Mapping[str, Habit]) -> list[int]:
    """Returns the head that the pictures show first: the one asked for, or that with the strongest induction."""
    return list((question and question.head) or strongest(habits["induction"]))


class Reader:
    """Turns ids into values for JSON."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def piece(self, token: int) -> dict[str, Any]:
        """Returns a token: its id and text, and its bytes if they are no whole character."""
        content = self.tokenizer.decode_bytes([token])
        found: dict[str, Any] = {"id": token, "text": content.decode(errors="replace")}
        if "\ufffd" in found["text"]:
            found["bytes"] = list(content)
        return found | ({"isEnd": True} if token == self.tokenizer.eot_id else {})

    def most_likely(self, probabilities: Tensor) -> list[dict[str, Any]]:
        """Returns the TOP tokens of probabilities (V,)."""
        best = probabilities.topk(min(TOP, len(probabilities)))
        return [
            {"piece": self.piece(token), "probability": probability}
            for token, probability in zip(best.indices.tolist(), rounded(best.values), strict=True)
        ]


def rounded(values: Tensor) -> Any:
    """Returns numbers with DIGITS decimals, in nested lists; None for those that are not finite.

    >>> rounded(torch.tensor([[0.123456, math.nan]]))
    [[0.12346, None]]
    """

    def cut(value: Any) -> Any:
        if isinstance(value, list):
            return [cut(part) for part in value]
        return round(value, DIGITS) if math.isfinite(value) else None

    return cut(values.cpu().double().tolist())


def pack(weights: Tensor) -> str:
    """Returns attention weights (..., T, T) as base64: rows up to the diagonal, 16 bits each, lowest byte first."""
    rows, columns = torch.tril_indices(*weights.shape[-2:])
    whole = (weights[..., rows, columns].float() * FULL).round().int().cpu().numpy()
    return base64.b64encode(whole.astype("<u2").tobytes()).decode("ascii")


def packed_bytes(config: ModelConfig, length: int) -> int:
    """Returns the length of what pack() makes for a prompt of `length` tokens."""
    return math.ceil(config.num_layers * config.num_heads * length * (length + 1) / 3) * 4
