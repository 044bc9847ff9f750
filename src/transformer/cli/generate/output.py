"""Output of generated texts: the text goes to standard output, messages go to standard error.

A single text is printed as it is generated. Several are generated in batches, and printed with a heading when complete.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console
from rich.text import Text

from transformer.cli.console import CONTROL
from transformer.cli.generate.chat import Chat
from transformer.cli.generate.options import WritingOptions
from transformer.generation import window_start
from transformer.inference.compiled_decode import CompiledDecoder
from transformer.inference.text_stream import ROWS, TextStream
from transformer.text import prompt_ids
from transformer.training.checkpoint import LoadedModel


@dataclass(frozen=True)
class Job:
    """A text to be generated."""

    prompt: str
    ids: Sequence[int]
    """Of the prompt; of a chat, those of all messages in the model's template."""
    seed: int
    max_new_tokens: int


@dataclass(frozen=True)
class Written:
    """A generated text without its prompt, and facts about it."""

    prompt: str
    text: str
    tokens: int
    prompt_tokens: int
    unseen_prompt_tokens: int
    """Tokens at the start of the prompt that did not fit into the model's context."""
    seed: int
    ending: str
    seconds: float
    """Time of the whole batch."""
    tokens_per_second: float


class Pen:
    """Generates with one model; prints the texts and messages about them. In a chat, it prints answers alone."""

    def __init__(self, loaded: LoadedModel, console: Console, compiled: bool = False) -> None:
        self.loaded, self.console = loaded, console
        self.model = CompiledDecoder(loaded.model) if compiled else loaded.model
        self.context = loaded.model.config.max_seq_len
        self.context_reported = False
        self.chat: Chat | None = None

    def say(self, sentence: str) -> None:
        """Prints a dim line on standard error."""
        self.console.print(Text(sentence, style="dim"))

    def write(self, options: WritingOptions, prompts: Sequence[str], seed: int, show: bool = True) -> list[Written]:
        """Generates num_samples texts for each prompt, and prints them if `show` is set.

        Raises ValueError if max_length or a chat's context leaves no tokens after a prompt.
        """
        jobs: list[Job] = []
        for prompt in prompts:
            ids, limit = self._prompt(options, prompt)
            jobs += [Job(prompt, ids, seed + sample, limit) for sample in range(options.num_samples)]
        started, done = time.perf_counter(), list[Written]()
        for limit, equal in groupby(jobs, lambda job: job.max_new_tokens):
            alike = list(equal)
            for start in range(0, len(alike), ROWS):
                batch = alike[start : start + ROWS]
                for text in self._batch(options, batch, limit, show and len(jobs) == 1):
                    done.append(text)
                    if show and len(jobs) > 1:
                        whole = shown(self._before(text.prompt) + text.text)
                        print(f"[{len(done)} of {len(jobs)}, seed {text.seed}]\n{whole}")
        self._report_texts(done, time.perf_counter() - started)
        return done

    def _batch(self, options: WritingOptions, jobs: list[Job], limit: int, stream: bool) -> list[Written]:
        prompts, seeds = [job.ids for job in jobs], [job.seed for job in jobs]
        started = time.perf_counter()
        writing = TextStream(
            self.model, self.loaded.tokenizer, prompts, options.sampling, limit, seeds=seeds,
            stop=options.stop_texts, reuse=None if self.chat is None else self.chat.reuse,
        )  # fmt: skip
        if stream:
            try:
                print_stream(self._before(jobs[0].prompt), (pieces[0] for pieces in writing))
            finally:
                if self.chat is not None:
                    self.chat.add(jobs[0].prompt, writing.texts[0])  # also what was written before Ctrl-C
        else:
            with self.console.status("generating") as status:  # shown on terminals only
                for number, _ in enumerate(writing, 1):
                    status.update(f"generating {len(jobs)} texts: token {number:,} of at most {limit:,}")
        seconds = time.perf_counter() - started
        return [
            Written(job.prompt, text, tokens, prompt_tokens, dropped, job.seed, ending, seconds, tokens / seconds)
            for job, text, tokens, prompt_tokens, dropped, ending in zip(
                jobs, writing.texts, writing.new_tokens, writing.prompt_tokens, writing.dropped, writing.endings,
                strict=True,
            )
        ]  # fmt: skip

    def _prompt(self, options: WritingOptions, prompt: str) -> tuple[list[int], int]:
        """Returns the ids of a prompt, and how many may follow."""
        if self.chat is not None:
            ids = self.chat.prompt(prompt, options.most_new_tokens)
            return ids, min(options.tokens_left(len(ids)), self.context - len(ids))
        ids = prompt_ids(self.loaded.tokenizer, prompt)
        limit = options.tokens_left(len(ids))
        self._report_prompt(prompt, len(ids))
        return ids, limit

    def _before(self, prompt: str) -> str:
        """Returns what is printed before a text."""
        return prompt if self.chat is None else ""

    def _report_prompt(self, prompt: str, length: int) -> None:
        if not prompt:
            self.say("empty prompt: a new text, starting from end-of-text")
        if unseen := window_start(length, self.context):
            self.context_reported = True
            self.say(
                f"the prompt has {length:,} tokens, the model's context {self.context:,}: "
                f"the model does not see the first {unseen:,}"
            )

    def _report_texts(self, texts: list[Written], seconds: float) -> None:
        longest = (
            max(text.prompt_tokens + text.tokens for text in texts) - 1
        )  # the model never processes the last token
        if longest > self.context and not self.context_reported:
            self.context_reported = True
            self.say(
                f"the text is longer than the {self.context:,}-token context; from there on the model saw only its "
                f"last {self.context // 2:,} to {self.context:,} tokens"
            )
        tokens = sum(text.tokens for text in texts)
        who = f"seed {texts[0].seed}" if len(texts) == 1 else f"{len(texts)} texts"
        ending = f", ended by {texts[0].ending}" if len(texts) == 1 else ""
        self.say(f"{who}: {tokens:,} tokens, {tokens / seconds:,.0f} tokens/s{ending}")
        if self.chat is not None and longest + 1 >= self.context:
            self.say(f"the context of {self.context:,} tokens is full: the answer may not be complete")


def print_stream(prompt: str, pieces: Iterator[str]) -> None:
    """Prints the prompt and then the pieces as they arrive; ends the line even after an interruption."""
    try:
        print(shown(prompt), end="", flush=True)
        for piece in pieces:
            print(shown(piece), end="", flush=True)
    finally:
        print(flush=True)


def shown(text: str) -> str:
    """Returns the text, with control characters replaced by U+FFFD if standard output is a terminal."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text) if sys.stdout.isatty() else text
