"""Options of the generated texts, set by flags and in the interactive mode."""

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
"""Default number of new tokens."""


@dataclass(frozen=True)
class WritingOptions(Config):
    """Sampling, length and number of the generated texts."""

    sampling: SamplingConfig = field(default_factory=lambda: SAMPLING_PRESETS["balanced"])
    preset: str = "balanced"
    """Named sampling settings: greedy, precise, balanced, creative or very-creative."""
    max_new_tokens: int | None = None
    """Maximum number of new tokens. None: 200, or --max-length minus the prompt."""
    max_length: int | None = None
    """Maximum length of the text in tokens, prompt included; use it instead of --max-new-tokens."""
    stop: UseAppendAction[tuple[str, ...]] = ()
    r"""Stop before this string; \n stands for a line break. Repeat the flag for several strings."""
    seed: int | None = None
    """Random seed: the same seed gives the same text. None: a new one each time, which is printed."""
    num_samples: int = 1
    """Texts for each prompt, with the seeds seed, seed + 1, ...; each equals the text of that seed alone."""

    def problems(self) -> list[str]:
        first = self.seed or 0
        last = first + max(1, self.num_samples) - 1  # each text is printed with its seed, which --seed must accept
        found = self.sampling.problems() + (seed_problems(first) or seed_problems(last))
        for name in ("max_new_tokens", "max_length", "num_samples"):
            if (value := getattr(self, name)) is not None and value < 1:
                found.append(f"{name}={value} must be at least 1")
        if self.max_new_tokens is not None and self.max_length is not None:
            found.append("max_new_tokens and max_length both limit the length: give one of them")
        if "" in self.stop:
            found.append("a stop string must not be empty")
        return found

    @property
    def stop_texts(self) -> list[str]:
        """The stop strings, with line breaks in place of \\n."""
        return [text.replace("\\n", "\n") for text in self.stop]

    def first_seed(self) -> int:
        """Returns the given seed, or a new one."""
        return secrets.randbits(32) if self.seed is None else self.seed

    @property
    def most_new_tokens(self) -> int:
        """The limit on new tokens if max_length is not set."""
        return self.max_new_tokens or NEW_TOKENS

    def tokens_left(self, prompt_tokens: int) -> int:
        """Returns how many tokens may follow a prompt. Raises ValueError if max_length leaves none."""
        if self.max_length is None:
            return self.most_new_tokens
        if prompt_tokens >= self.max_length:
            raise ValueError(
                f"max_length={self.max_length} leaves no tokens after a prompt of {prompt_tokens} tokens: "
                f"give {prompt_tokens + 1} or more, or max_new_tokens"
            )
        return self.max_length - prompt_tokens

    def sentences(self, seed: int, vocab_size: int) -> Iterator[str]:
        """Yields a line with the settings, and a sentence for every given setting that has no effect."""
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
            yield "greedy decoding is deterministic: all samples of a prompt are the same"


def preset_named(name: str) -> SamplingConfig:
    """Returns a preset's settings. Raises ConfigError for an unknown name."""
    if name not in SAMPLING_PRESETS:
        known = ", ".join(SAMPLING_PRESETS)
        raise ConfigError([f"there is no preset {name!r}: one of {known}{near_miss(name, SAMPLING_PRESETS)}"])
    return SAMPLING_PRESETS[name]
