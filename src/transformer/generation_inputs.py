"""What generation takes: the part of a model that it uses, and the checks of its other arguments.

The loop is in generation.py. Each error says what was given, what is possible and what to do.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from transformer.config import ModelConfig, SamplingConfig
from transformer.kv_cache import KVCache

DEFAULT_LENGTH = 100
"""Length of the text that model.generate returns if none is given, in tokens, prompt included."""


class LanguageModel(Protocol):
    """The part of a model that generation uses: any object with these methods will do."""

    config: ModelConfig

    @property
    def training(self) -> bool:
        """Whether dropout is on."""

    def next_logits(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """tokens (B, T) int64, which continue the cache -> logits of the token after the last, (B, V)."""

    def allocate_cache(self, batch_size: int, max_len: int) -> KVCache:
        """Returns an empty cache that holds at least max_len tokens per row."""

    def train(self, mode: bool = True) -> object:
        """Switches dropout on or off."""


def check_arguments(config: ModelConfig, prompt: object, max_new_tokens: int, sampling: SamplingConfig) -> None:
    """Raises TypeError, ValueError or ConfigError for arguments with which a model cannot generate."""
    check_prompt(config, prompt)
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} is below 0")
    sampling.check()


def check_prompt(config: ModelConfig, prompt: object) -> None:
    """Raises TypeError or ValueError if the prompt is not (B, T) int64, T at least 1, of the model's ids."""
    encode = "torch.tensor([tokenizer.encode(text)]) makes a prompt of a text"
    if not isinstance(prompt, Tensor):
        raise TypeError(f"the prompt is of type {type(prompt).__name__}, not a tensor of token ids: {encode}")
    if prompt.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"the prompt has dtype {prompt.dtype}, not torch.int64: {encode}")
    if prompt.ndim != 2 or prompt.shape[1] == 0:
        advice = "add a batch dimension, prompt[None]" if prompt.ndim == 1 else "start an empty text from end-of-text"
        raise ValueError(
            f"the prompt has shape {tuple(prompt.shape)}, not (batch, tokens) with at least one token: {advice}"
        )
    outside = (prompt < 0) | (prompt >= config.vocab_size)
    if bool(outside.any()):
        raise ValueError(
            f"the prompt has the id {int(prompt[outside][0])}, but the model's ids are 0 to {config.vocab_size - 1}: "
            "encode the text with the model's own tokenizer"
        )


def count_new_tokens(prompt_length: int, max_length: int | None, max_new_tokens: int | None) -> int:
    """Returns the number of tokens to generate; max_length counts the prompt.

    Raises ValueError if both are given, and for a prompt longer than max_length.
    """
    if max_new_tokens is not None:
        if max_length is not None:
            raise ValueError(f"max_length={max_length} and max_new_tokens={max_new_tokens} are both given: give one")
        return max_new_tokens
    max_length = DEFAULT_LENGTH if max_length is None else max_length
    if prompt_length > max_length:
        raise ValueError(
            f"the prompt has {prompt_length} tokens, more than max_length={max_length}: "
            "raise max_length, or give max_new_tokens"
        )
    return max_length - prompt_length
