"""The options of the generate command; those of the texts can also be set in the interactive mode."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from transformer.cli.options import REPEATED, given_values, parse
from transformer.config import SAMPLING_PRESETS, Config, Kernels, SamplingConfig, Weights, seed_problems
from transformer.presets import CHAT_TOKENS, sampling_preset

NEW_TOKENS = 200
"""Default number of new tokens."""


@dataclass(frozen=True)
class WritingOptions(Config):
    """Sampling, length and number of the generated texts."""

    sampling: SamplingConfig = field(default_factory=lambda: SAMPLING_PRESETS["balanced"])
    preset: str = "balanced"
    """Named sampling settings: greedy, precise, balanced, creative or very-creative."""
    max_new_tokens: int | None = None
    """Maximum number of new tokens. None: 200 (of an answer 1000), or --max-length minus the prompt."""
    max_length: int | None = None
    """Maximum length of the text in tokens, prompt included; use it instead of --max-new-tokens."""
    stop: tuple[str, ...] = field(default=(), metadata=REPEATED)
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


@dataclass(frozen=True)
class GenerateOptions(WritingOptions):
    """Generate text with a trained model. Without a prompt at a terminal: interactively."""

    prompt: tuple[str, ...] = field(default=(), metadata=REPEATED)
    """The text to continue; "" starts a new text. Repeat the flag for several prompts."""
    prompt_file: Path | None = None
    """A file with the text to continue; its last line break is removed."""
    chat: bool = False
    """The prompt is a message to a model that was trained to answer (an Instruct model): print its answer. At a
    terminal without a prompt: a conversation."""
    system: str | None = None
    """The system message of --chat: how the model should answer."""
    checkpoint: Path | None = None
    """The checkpoint to use. None: the latest; FOLDER: the latest in it. "best": the lowest validation loss
    of all runs here; FOLDER/best: of those in FOLDER. hf:OWNER/NAME, a folder with config.json
    or a .gguf file: a model of another program, imported at its first use."""
    json: bool = False
    """Print one JSON object: the settings, and every text with its tokens, seed, ending and speed."""
    list_presets: bool = False
    """Print the presets and their settings."""
    weights: Weights = "float32"
    """Format of the weight matrices. float16 and int8 are faster on a CPU, with a small error that `evaluate --weights`
    measures."""
    int8: bool = False
    """Same as --weights int8."""
    kernels: Kernels = "auto"
    """auto: faster equivalents of core functions, chosen by processor. plain: the code of the core files. A kind of
    processor: the choices for that kind."""
    compile: bool = False
    """Compile the decode step with torch.compile. The first tokens are slow; the effect on later ones depends on the
    device (docs/measurements.md)."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def problems(self) -> list[str]:
        found = super().problems()
        if self.prompt and self.prompt_file:
            found.append("--prompt and --prompt-file both set the text to continue: give one of them")
        if not self.prompt and self.prompt_file is None and sys.stdin is None:
            found.append("there is no prompt and no standard input: give --prompt")
        if self.json and self.is_interactive:
            found.append("--json has no interactive mode: give --prompt, --prompt-file, or text on standard input")
        if self.system is not None and not self.chat:
            found.append("--system is the system message of a chat: give --chat too")
        if self.chat and self.num_samples > 1 and self.is_interactive:
            found.append(f"num_samples={self.num_samples}: in a conversation each message has one answer")
        return found

    @property
    def most_new_tokens(self) -> int:
        return self.max_new_tokens or (CHAT_TOKENS if self.chat else NEW_TOKENS)

    @property
    def is_interactive(self) -> bool:
        """Whether there is no prompt and standard input is a terminal."""
        return not self.prompt and self.prompt_file is None and sys.stdin is not None and sys.stdin.isatty()


def read_options(arguments: Sequence[str]) -> GenerateOptions:
    """Reads the flags; their defaults are the settings of the preset."""
    usual = GenerateOptions()
    preset = given_values(usual, arguments, "generate").get("preset", usual.preset)
    return parse(replace(usual, sampling=sampling_preset(preset)), arguments, "generate", GenerateOptions.check)
