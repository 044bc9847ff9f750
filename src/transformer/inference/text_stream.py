"""Text in, text out: continues prompts and yields the new text piece by piece. All commands generate through this.

batch.py works on tokens. Here prompts are encoded, an empty one as end-of-text, and new tokens are decoded as they
come. A piece is held back while later tokens may still change it: the first bytes of a character, or the beginning of a
stop string.

    tokens       "Once"  " upon"  " a"  " ti"  "me"        stop string: "a time"
    yielded      "Once"  " upon"  " "   ""     ""          the text ends: "Once upon "
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch

from transformer.config import SamplingConfig
from transformer.generation import window_start
from transformer.inference.batch import BatchModel, stream_tokens
from transformer.inference.padding import pad
from transformer.inference.reuse import Reuse
from transformer.text import StreamDecoder, Tokenizer, prompt_ids

Ending = Literal["length", "end of text", "stop string"]
Prompt = str | Sequence[int]
"""A text to continue, or its ids."""
ROWS = 32
"""Texts that are generated together; more are generated in several batches."""


class TextStream:
    """The continuations of `prompts`: iterate over it, once, for the pieces of text as they come.

    Each step yields a list with the new text of each prompt, often "". Row i draws from a generator of its own, seeded
    with seeds[i], or seeds + i if `seeds` is a number; so it gives the text that its prompt alone gives with that seed.
    Raises ValueError for no prompt or an empty stop string, before anything is generated.
    """

    def __init__(
        self,
        model: BatchModel,
        tokenizer: Tokenizer,
        prompts: Sequence[Prompt],
        sampling: SamplingConfig,
        max_new_tokens: int,
        *,
        seeds: Sequence[int] | int = 0,
        stop: Sequence[str] = (),
        use_cache: bool = True,
        reuse: Reuse | None = None,
    ) -> None:
        if not all(stop):
            raise ValueError("a stop string is empty: every text would end before its first character")
        seeds = range(seeds, seeds + len(prompts)) if isinstance(seeds, int) else seeds
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts: give one for each")
        ids = [prompt_ids(tokenizer, prompt) if isinstance(prompt, str) else list(prompt) for prompt in prompts]
        tokens, padding = pad(ids)
        self.prompt_tokens = [len(row) for row in ids]
        self.dropped = [window_start(len(row), model.config.max_seq_len) for row in ids]
        """Tokens at the beginning of each prompt that do not fit the model's context: the model never sees them."""
        self._stop_ids = tokenizer.stop_ids
        self._rows = [_Row(tokenizer, tuple(stop)) for _ in prompts]
        self._stream = stream_tokens(
            model,
            tokens.to(model.device),
            max_new_tokens,
            sampling,
            stop_ids=tokenizer.stop_ids,
            use_cache=use_cache,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            padding=padding if padding.any() else None,
            is_finished=(lambda: torch.tensor([row.ending is not None for row in self._rows])) if stop else None,
            reuse=reuse,
        )

    def __iter__(self) -> Iterator[list[str]]:
        for step in self._stream:
            yield [row.add(token, self._stop_ids) for row, token in zip(self._rows, step.tolist(), strict=True)]
        last = [row.finish() for row in self._rows]
        if any(last):
            yield last

    @property
    def texts(self) -> list[str]:
        """The new text of each prompt so far."""
        return ["".join(row.pieces) for row in self._rows]

    @property
    def tokens(self) -> list[list[int]]:
        """The new ids of each prompt so far, including those of a stop string, without end-of-text."""
        return [row.tokens for row in self._rows]

    @property
    def new_tokens(self) -> list[int]:
        """The number of tokens generated so far for each prompt, end-of-text included."""
        return [len(row.tokens) + (row.ending == "end of text") for row in self._rows]

    @property
    def endings(self) -> list[Ending]:
        """Why each text ended, known when all have ended: "length", "end of text" or "stop string"."""
        return [row.ending or "length" for row in self._rows]


def generate_text(
    model: BatchModel,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: SamplingConfig,
    max_new_tokens: int,
    seed: int = 0,
    stop: Sequence[str] = (),
) -> str:
    """Returns the continuation of one prompt, without the prompt."""
    stream = TextStream(model, tokenizer, [prompt], sampling, max_new_tokens, seeds=seed, stop=stop)
    return "".join(piece for (piece,) in stream)


class _Row:
    """The text of one prompt: its new tokens, the text yielded so far, and the text held back."""

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...]) -> None:
        self.decoder, self.stop = StreamDecoder(tokenizer), stop
        self.tokens: list[int] = []
        self.pieces: list[str] = []
        self.held = ""  # decoded, but perhaps the beginning of a stop string
        self.ending: Ending | None = None

    def add(self, token: int, stop_ids: Sequence[int]) -> str:
        """Takes the next token; returns the text that later tokens cannot change. After the end: nothing."""
        if self.ending is not None:
            return ""
        if token in stop_ids:
            text = self._flush()
            self.ending = self.ending or "end of text"  # the flushed bytes may have completed a stop string
            return self._keep(text)
        self.tokens.append(token)
        return self._keep(self._until_stop(self.decoder.push(token)))

    def finish(self) -> str:
        """Returns the text that was held back, when no more tokens come."""
        return "" if self.ending is not None else self._keep(self._flush())

    def _flush(self) -> str:
        """Returns all held text, an incomplete character as U+FFFD, or the part before a stop string it completes."""
        text = self._until_stop(self.decoder.flush())
        if self.ending is None:
            text, self.held = text + self.held, ""
        return text

    def _until_stop(self, new: str) -> str:
        """Returns the part of held + new text that is before any stop string, and holds back a possible beginning."""
        text = self.held + new
        found = [index for string in self.stop if (index := text.find(string)) >= 0]
        if found:
            self.ending, self.held = "stop string", ""
            return text[: min(found)]
        keep = max((_overlap(text, string) for string in self.stop), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _keep(self, text: str) -> str:
        if text:
            self.pieces.append(text)
        return text


def _overlap(text: str, string: str) -> int:
    """Returns the number of characters at the end of the text that begin the string.

    >>> _overlap("Once upon a ti", "a time"), _overlap("Once", "a time")
    (4, 0)
    """
    longest = min(len(text), len(string) - 1)
    return next((count for count in range(longest, 0, -1) if string.startswith(text[-count:])), 0)
