"""Text in, text out: what a model writes after prompts, piece by piece, for every command that lets one write.

generation.py knows tokens only. Here prompts are encoded, an empty one as end-of-text; what comes is decoded as it
comes, and held back while it may still become something else: half of a character, or the beginning of a stop string.

    tokens written     "Once"  " upon"  " a"  " ti"  "me"        stop string: "a time"
    certain            "Once"  " upon"  " "   ""     ""          and the text ends: "Once upon "
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch

from transformer.config import SamplingConfig
from transformer.generation import LanguageModel, pad, stream_tokens, window_start
from transformer.text import StreamDecoder, Tokenizer

Ending = Literal["length", "end of text", "stop string"]


class Writing:
    """What a model writes after `prompts`: iterate over it, once, for the pieces as they come.

    Each step yields a list with, for each prompt, the text that has become certain, often "". Row i draws from a
    generator of its own, seeded with seeds[i], or seeds + i where `seeds` is a number: so it gives what its prompt
    alone gives with that seed. Raises ValueError for no prompt, or an empty stop string, before anything is written.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        prompts: Sequence[str],
        sampling: SamplingConfig,
        max_new_tokens: int,
        *,
        seeds: Sequence[int] | int = 0,
        stop: Sequence[str] = (),
        use_cache: bool = True,
    ) -> None:
        if not all(stop):
            raise ValueError("a stop string is empty: every text would end before it begins")
        seeds = range(seeds, seeds + len(prompts)) if isinstance(seeds, int) else seeds
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(seeds)} seeds do not fit {len(prompts)} prompts")
        ids = [tokenizer.encode(prompt) or [tokenizer.eot_id] for prompt in prompts]
        tokens, padding = pad(ids)
        self.prompt_tokens = [len(row) for row in ids]
        self.dropped = [window_start(len(row), model.config.max_seq_len) for row in ids]
        """Tokens at the beginning of each prompt that do not fit the model's context: it never sees them."""
        self._eot_id = tokenizer.eot_id
        self._rows = [_Row(tokenizer, tuple(stop)) for _ in prompts]
        self._stream = stream_tokens(
            model,
            tokens.to(model.device),
            sampling,
            max_new_tokens,
            stop_ids=[tokenizer.eot_id],
            use_cache=use_cache,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            padding=padding if padding.any() else None,
            ended=(lambda: torch.tensor([row.ending is not None for row in self._rows])) if stop else None,
        )

    def __iter__(self) -> Iterator[list[str]]:
        for step in self._stream:
            yield [row.add(token, self._eot_id) for row, token in zip(self._rows, step.tolist(), strict=True)]
        last = [row.finish() for row in self._rows]
        if any(last):
            yield last

    @property
    def texts(self) -> list[str]:
        """What has been written so far after each prompt."""
        return ["".join(row.pieces) for row in self._rows]

    @property
    def tokens(self) -> list[list[int]]:
        """The ids that have been written so far, with those of a stop string and without end-of-text."""
        return [row.tokens for row in self._rows]

    @property
    def new_tokens(self) -> list[int]:
        """How many tokens the model has written so far, end-of-text included."""
        return [len(row.tokens) + (row.ending == "end of text") for row in self._rows]

    @property
    def endings(self) -> list[Ending]:
        """Why each text ended, known once all have: "length", "end of text" or "stop string"."""
        return [row.ending or "length" for row in self._rows]


def write(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: SamplingConfig,
    max_new_tokens: int,
    seed: int = 0,
    stop: Sequence[str] = (),
) -> str:
    """Returns what the model writes after one prompt, without the prompt."""
    return "".join(
        text for (text,) in Writing(model, tokenizer, [prompt], sampling, max_new_tokens, seeds=seed, stop=stop)
    )


class _Row:
    """One text: its tokens, and of its characters which are certain."""

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...]) -> None:
        self.decoder, self.stop = StreamDecoder(tokenizer), stop
        self.tokens: list[int] = []
        self.pieces: list[str] = []
        self.held = ""
        """Decoded, and perhaps the beginning of a stop string."""
        self.ending: Ending | None = None

    def add(self, token: int, eot_id: int) -> str:
        """Takes the next token; returns the text that is certain now. Nothing comes after the end."""
        if self.ending is not None:
            return ""
        if token == eot_id:
            text = self._rest()
            self.ending = self.ending or "end of text"
            return self._sure(text)
        self.tokens.append(token)
        return self._sure(self._until_stop(self.decoder.push(token)))

    def finish(self) -> str:
        """Returns what was held back in vain, when nothing more comes."""
        return "" if self.ending is not None else self._sure(self._rest())

    def _rest(self) -> str:
        """What was held back, with half a character as U+FFFD: up to a stop string that it completes."""
        text = self._until_stop(self.decoder.flush())
        if self.ending is None:
            text, self.held = text + self.held, ""
        return text

    def _until_stop(self, new: str) -> str:
        """Returns what is certain of the held text and the new one; the rest is held, or cut at a stop string."""
        text = self.held + new
        found = [place for string in self.stop if (place := text.find(string)) >= 0]
        if found:
            self.ending, self.held = "stop string", ""
            return text[: min(found)]
        keep = max((_overlap(text, string) for string in self.stop), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _sure(self, text: str) -> str:
        if text:
            self.pieces.append(text)
        return text


def _overlap(text: str, string: str) -> int:
    """Returns how many characters at the text's end begin the string.

    >>> _overlap("Once upon a ti", "a time"), _overlap("Once", "a time")
    (4, 0)
    """
    longest = min(len(text), len(string) - 1)
    return next((count for count in range(longest, 0, -1) if string.startswith(text[-count:])), 0)
