"""What can be chosen about the texts that `generate` writes, by flags and in its interactive mode."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from tyro.conf import UseAppendAction

from transformer.cli.formatting import describe
from transformer.cli.sampling_settings import top_k_notice, unused_settings
from transformer.config import SAMPLING_PRESETS, Config, ConfigError, SamplingConfig, near_miss, seed_problems
from transformer.sampling import is_greedy

NEW_TOKENS = 200
"""Tokens to write where nothing else is said."""


@dataclass(frozen=True)
class WritingOptions(Config):
    """How texts are written, and how many."""

    sampling: SamplingConfig = field(default_factory=lambda: SAMPLING_PRESETS["balanced"])
    preset: str = "balanced"
    """Named sampling settings: greedy, precise, balanced, creative or very-creative."""
    max_new_tokens: int | None = None
    """Most tokens to write; the text may end before. None: 200, or what --max-length leaves."""
    max_length: int | None = None
    """Longest text in tokens, prompt included; in place of --max-new-tokens."""
    stop: UseAppendAction[tuple[str, ...]] = ()
    r"""The text ends before this one, and \n in it is a line break; may be given several times."""
    seed: int | None = None
    """Fixes the draws: the same seed gives the same text. None: a new one every time, which is printed."""
    num_samples: int = 1
    """Texts for each prompt, with the seeds seed, seed + 1, ...; each is what its seed gives alone."""

    def problems(self) -> list[str]:
        found = self.sampling.problems() + seed_problems(self.seed or 0)
        for name in ("max_new_tokens", "max_length", "num_samples"):
            if (value := getattr(self, name)) is not None and value < 1:
                found.append(f"{name}={value} must be at least 1")
        if self.max_new_tokens is not None and self.max_length is not None:
            found.append("max_new_tokens and max_length both say where the text ends: give one of them")
        if "" in self.stop:
            found.append("a stop text must not be empty")
        return found

    @property
    def stop_texts(self) -> list[str]:
        """The stop texts with their line breaks."""
        return [text.replace("\\n", "\n") for text in self.stop]

    def first_seed(self) -> int:
        """Returns the seed that was chosen, or a new one."""
        return secrets.randbits(32) if self.seed is None else self.seed

    @property
    def most_new_tokens(self) -> int:
        """The limit on new tokens where max_length sets none."""
        return self.max_new_tokens or NEW_TOKENS

    def room(self, prompt_tokens: int) -> int:
        """Returns how many tokens may follow a prompt. Raises ValueError where max_length leaves none."""
        if self.max_length is None:
            return self.most_new_tokens
        if prompt_tokens >= self.max_length:
            raise ValueError(
                f"max_length={self.max_length} leaves no room after a prompt of {prompt_tokens} tokens: "
                f"give {prompt_tokens + 1} or more, or max_new_tokens"
            )
        return self.max_length - prompt_tokens

    def sentences(self, seed: int, vocab_size: int) -> Iterator[str]:
        """Yields what is set, and a sentence for every setting that was chosen and does nothing."""
        seeds = f"seed {seed}" if self.num_samples == 1 else f"seeds {seed} to {seed + self.num_samples - 1}"
        if self.max_length is None:
            length = f"at most {self.most_new_tokens:,} new tokens"
        else:
            length = f"at most {self.max_length:,} tokens with the prompt"
        stop = "".join(f", up to {text!r}" for text in self.stop_texts)
        yield f"{describe(self.sampling)}, {seeds}, {length}{stop}"
        chosen, usual = self.sampling.to_dict(), preset_named(self.preset).to_dict()
        for name in unused_settings(self.sampling, [name for name in chosen if chosen[name] != usual[name]]):
            yield f"{name} {chosen[name]} has no effect with strategy {self.sampling.strategy}"
        if sentence := top_k_notice(self.sampling, vocab_size):
            yield sentence
        if self.num_samples > 1 and is_greedy(self.sampling):
            yield "greedy draws nothing: all samples of a prompt are the same"


def preset_named(name: str) -> SamplingConfig:
    """Returns a preset's settings. Raises ConfigError for a name that there is not."""
    if name not in SAMPLING_PRESETS:
        known = ", ".join(SAMPLING_PRESETS)
        raise ConfigError([f"there is no preset {name!r}: one of {known}{near_miss(name, SAMPLING_PRESETS)}"])
    return SAMPLING_PRESETS[name]
