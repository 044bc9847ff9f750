"""The question that a report answers: a prompt, the token whose prediction is explained, and its alternative."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transformer.generation import eval_mode
from transformer.model import DecoderOnlyTransformer
from transformer.text import Tokenizer
from transformer.text.tokenizer import prompt_ids

MOST_TOKENS = 256
"""Limit on the prompt's length: no picture of more tokens can be read."""


@dataclass(frozen=True)
class Question:
    """Token ids. A report needs a question that has passed check() and complete()."""

    prompt: list[int]
    target: int | None = None
    """The next token whose logit is explained; None: the most likely one after the prompt."""
    rather_than: int | None = None
    """The token that it is compared with, if any; None with `versus`: the most likely one after that prompt."""
    versus: list[int] | None = None
    """A second prompt of as many tokens."""
    head: tuple[int, int] | None = None
    """Layer and number of a head to show in detail."""

    def tokens(self, model: DecoderOnlyTransformer) -> Tensor:
        """Returns the prompt as (1, T) int64 on the device of the model."""
        return torch.tensor([self.prompt], device=model.device)


def read_question(
    tokenizer: Tokenizer,
    prompt: str,
    target: str | None = None,
    rather_than: str | None = None,
    versus: str | None = None,
    head: tuple[int, int] | None = None,
) -> Question:
    """Returns the question that texts ask. Raises ValueError for unequal prompts, and for a target of many tokens."""
    ids = prompt_ids(tokenizer, prompt)
    other = None if versus is None else prompt_ids(tokenizer, versus)
    if other is not None and len(other) != len(ids):
        raise ValueError(
            f"the prompts have {len(ids)} and {len(other)} tokens, and patching needs equal numbers: "
            f"{cut(tokenizer, ids)} and {cut(tokenizer, other)}"
        )
    one, two = (None if text is None else single_token(tokenizer, text) for text in (target, rather_than))
    return Question(ids, one, two, other, head)


def single_token(tokenizer: Tokenizer, text: str) -> int:
    """Returns the id of a text that is one token. Raises ValueError for any other."""
    ids = tokenizer.encode(text)
    if len(ids) != 1:
        raise ValueError(f"{text!r} is {len(ids)} tokens for this model, {cut(tokenizer, ids)}: give a single token")
    return ids[0]


def cut(tokenizer: Tokenizer, ids: list[int]) -> str:
    """Returns the tokens of a text between bars: |When| Mary| and|."""
    return f"|{'|'.join(tokenizer.decode([token]) for token in ids)}|"


def check(question: Question, model: DecoderOnlyTransformer) -> None:
    """Raises ValueError for a prompt that is too long, and for a head that the model does not have."""
    length, config = len(question.prompt), model.config
    if length > config.max_seq_len:
        raise ValueError(f"the prompt has {length:,} tokens, and the model's context is {config.max_seq_len:,}")
    if length > MOST_TOKENS:
        raise ValueError(f"the prompt has {length:,} tokens, and the pictures show at most {MOST_TOKENS}")
    if question.head is not None:
        layer, head = question.head
        for name, given, count in (("layer", layer, config.num_layers), ("head", head, config.num_heads)):
            if given >= count:
                raise ValueError(f"head {layer}.{head}: there is no {name} {given}, the last one is {count - 1}")


@torch.no_grad()
def complete(question: Question, model: DecoderOnlyTransformer) -> Question:
    """Returns the question with both tokens. Raises ValueError if they are the same."""
    target, other = question.target, question.rather_than
    with eval_mode(model):
        target = most_likely(model, question.prompt) if target is None else target
        if other is None and question.versus is not None:
            other = most_likely(model, question.versus)
            if other == target:
                raise ValueError(
                    "the model predicts the same token after both prompts, so there is no difference to explain: name "
                    "the token of each prompt, with --target and --rather-than"
                )
    if other is not None and other == target:
        raise ValueError("--target and --rather-than are the same token, so there is no difference to explain")
    return replace(question, target=target, rather_than=other)


def most_likely(model: DecoderOnlyTransformer, ids: list[int]) -> int:
    """Returns the most likely token after some others."""
    return int(model.next_logits(torch.tensor([ids], device=model.device)).argmax())
