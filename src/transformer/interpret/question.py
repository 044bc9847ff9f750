"""The question that a report answers: a prompt, and what is asked about it."""

from __future__ import annotations

from dataclasses import dataclass

from transformer.model import DecoderOnlyTransformer

MOST_TOKENS = 256
"""Limit on the prompt's length: no picture of more tokens can be read."""


@dataclass(frozen=True)
class Question:
    """A prompt as token ids, and the layer and number of a head to show first."""

    prompt: list[int]
    head: tuple[int, int] | None = None

    def check(self, model: DecoderOnlyTransformer) -> None:
        """Raises ValueError for a prompt that is too long, and for a head that the model does not have."""
        length, config = len(self.prompt), model.config
        if length > config.max_seq_len:
            raise ValueError(f"the prompt has {length:,} tokens, and the model's context is {config.max_seq_len:,}")
        if length > MOST_TOKENS:
            raise ValueError(f"the prompt has {length:,} tokens, and the pictures show at most {MOST_TOKENS}")
        if self.head is not None:
            layer, head = self.head
            for name, given, count in (("layer", layer, config.num_layers), ("head", head, config.num_heads)):
                if given >= count:
                    raise ValueError(f"head {layer}.{head}: there is no {name} {given}, the last one is {count - 1}")
