"""Texts that a model writes: the text goes to standard output, what is said about it to standard error.

One text appears as it is written. Several are written side by side, and each is printed with a heading when it is done.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console
from rich.text import Text

from transformer.cli.generate.options import WritingOptions
from transformer.generation import window_start
from transformer.inference.compiled_decode import CompiledDecoder
from transformer.inference.text_stream import TextStream
from transformer.training.checkpoint import LoadedModel

ROWS = 32
"""Most texts that are written side by side."""
# Control characters, which a terminal obeys, and those that turn the direction of a line round.
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Job:
    """A text to be written."""

    prompt: str
    seed: int
    max_new_tokens: int


@dataclass(frozen=True)
class Written:
    """A text, without its prompt, and how it came about."""

    prompt: str
    text: str
    tokens: int
    prompt_tokens: int
    unseen_prompt_tokens: int
    """Tokens at the beginning of the prompt that lay beyond the model's context."""
    seed: int
    ending: str
    seconds: float
    """How long it took, together with the texts that were written beside it."""
    tokens_per_second: float


class Pen:
    """Writes with one model and prints, and says what a reader should know."""

    def __init__(self, loaded: LoadedModel, console: Console, compiled: bool = False) -> None:
        self.loaded, self.console = loaded, console
        self.model = CompiledDecoder(loaded.model) if compiled else loaded.model
        self.context = loaded.model.config.max_seq_len
        self.told_of_context = False

    def say(self, sentence: str) -> None:
        """Prints a sentence about the text, on standard error and dimly."""
        self.console.print(Text(sentence, style="dim"))

    def write(self, options: WritingOptions, prompts: Sequence[str], seed: int, show: bool = True) -> list[Written]:
        """Writes num_samples texts for each prompt, and prints them where they are to be shown.

        Raises ValueError where max_length leaves no room after a prompt.
        """
        jobs: list[Job] = []
        for prompt in prompts:
            length = len(self.loaded.tokenizer.encode(prompt)) or 1  # end-of-text stands for an empty one
            room = options.room(length)
            self._speak_of_prompt(prompt, length)
            jobs += [Job(prompt, seed + sample, room) for sample in range(options.num_samples)]
        started, done = time.perf_counter(), list[Written]()
        for room, equal in groupby(jobs, lambda job: job.max_new_tokens):
            alike = list(equal)
            for start in range(0, len(alike), ROWS):
                batch = alike[start : start + ROWS]
                for text in self._batch(options, batch, room, show and len(jobs) == 1):
                    done.append(text)
                    if show and len(jobs) > 1:
                        print(f"[{len(done)} of {len(jobs)}, seed {text.seed}]\n{shown(text.prompt + text.text)}")
        self._speak_of_texts(done, time.perf_counter() - started)
        return done

    def _batch(self, options: WritingOptions, jobs: list[Job], room: int, stream: bool) -> list[Written]:
        prompts, seeds = [job.prompt for job in jobs], [job.seed for job in jobs]
        started = time.perf_counter()
        writing = TextStream(
            self.model, self.loaded.tokenizer, prompts, options.sampling, room, seeds=seeds,
            stop=options.stop_texts,
        )  # fmt: skip
        if stream:
            print_stream(prompts[0], (pieces[0] for pieces in writing))
        else:
            with self.console.status("writing") as status:  # shows itself on terminals only
                for number, _ in enumerate(writing, 1):
                    status.update(f"writing {len(jobs)} texts: token {number:,} of at most {room:,}")
        seconds = time.perf_counter() - started
        return [
            Written(job.prompt, text, tokens, prompt_tokens, dropped, job.seed, ending, seconds, tokens / seconds)
            for job, text, tokens, prompt_tokens, dropped, ending in zip(
                jobs, writing.texts, writing.new_tokens, writing.prompt_tokens, writing.dropped, writing.endings,
                strict=True,
            )
        ]  # fmt: skip

    def _speak_of_prompt(self, prompt: str, length: int) -> None:
        if not prompt:
            self.say("an empty prompt: a new text, begun from end-of-text")
        if unseen := window_start(length, self.context):
            self.told_of_context = True
            self.say(
                f"the prompt has {length:,} tokens, the model's context {self.context:,}: "
                f"it does not see the first {unseen:,}"
            )

    def _speak_of_texts(self, texts: list[Written], seconds: float) -> None:
        longest = max(text.prompt_tokens + text.tokens for text in texts)
        if longest > self.context and not self.told_of_context:
            self.told_of_context = True
            self.say(
                f"the text has outgrown the model's context of {self.context:,} tokens: "
                "it wrote on with the last half of them or more in sight"
            )
        tokens = sum(text.tokens for text in texts)
        who = f"seed {texts[0].seed}" if len(texts) == 1 else f"{len(texts)} texts"
        ending = f", ended by {texts[0].ending}" if len(texts) == 1 else ""
        self.say(f"{who}: {tokens:,} tokens, {tokens / seconds:,.0f} tokens/s{ending}")


def print_stream(prompt: str, pieces: Iterator[str]) -> None:
    """Prints the prompt and then the pieces as they come; ends the line also where the reader interrupts."""
    try:
        print(shown(prompt), end="", flush=True)
        for piece in pieces:
            print(shown(piece), end="", flush=True)
    finally:
        print(flush=True)


def shown(text: str) -> str:
    """Returns the text as it is for a file or a pipe; for a terminal with U+FFFD for whatever a terminal obeys."""
    return OBEYED.sub("\N{REPLACEMENT CHARACTER}", text) if sys.stdout.isatty() else text
