"""The generate command; commands/generate.py documents it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tyro.conf import UseAppendAction

from transformer.cli.console import console
from transformer.cli.formatting import describe
from transformer.cli.generate.options import WritingOptions, preset_named
from transformer.cli.generate.output import Pen, Written
from transformer.cli.generate.repl import COMMANDS, VALUES, Shell
from transformer.cli.json_output import print_json
from transformer.cli.models import open_model
from transformer.cli.options import flag_value, parse
from transformer.config import SAMPLING_PRESETS
from transformer.kernels import Kernels
from transformer.text import decode_text
from transformer.training.checkpoint import LoadedModel


@dataclass(frozen=True)
class GenerateOptions(WritingOptions):
    """Generate text with a trained model. Without a prompt at a terminal: interactively."""

    prompt: UseAppendAction[tuple[str, ...]] = ()
    """The text to continue; "" starts a new text. Repeat the flag for several prompts."""
    prompt_file: Path | None = None
    """A file with the text to continue; its last line break is removed."""
    checkpoint: Path | None = None
    """The checkpoint to use; "best" or FOLDER/best: the one with the lowest validation loss. None: the latest."""
    json: bool = False
    """Print one JSON object: the settings, and every text with its tokens, seed, ending and speed."""
    list_presets: bool = False
    """Print the presets and their settings."""
    int8: bool = False
    """Round the weights to 8 bits: faster, with a small error that `evaluate --int8` measures."""
    kernels: Kernels = "auto"
    """auto: faster equivalents of core functions. plain: the code of the core files."""
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
        return found

    @property
    def is_interactive(self) -> bool:
        """Whether there is no prompt and standard input is a terminal."""
        return not self.prompt and self.prompt_file is None and sys.stdin is not None and sys.stdin.isatty()


def main(arguments: Sequence[str]) -> None:
    options = read_options(arguments)
    if options.list_presets:
        for name, preset in SAMPLING_PRESETS.items():
            print(f"{name:<14} {describe(preset)}")
        return
    prompts = given_prompts(options)
    loaded, seed = open_model(options.checkpoint, options.device, options.int8, options.kernels), options.first_seed()
    pen = Pen(loaded, console(stderr=True), options.compile)
    pen.say(loaded.description)
    for sentence in options.sentences(seed, loaded.tokenizer.vocab_size):
        pen.say(sentence)
    if options.is_interactive:
        from transformer.cli.generate.line_input import (
            line_reader,  # imports prompt_toolkit, which only this mode needs
        )

        Shell(pen, options, seed, line_reader(tuple(COMMANDS), VALUES)).run()
        return
    if prompts is None:
        pen.say("reading the prompt from standard input, up to its end")
        prompts = [decoded(sys.stdin.buffer.read(), "standard input")]
    texts = pen.write(options, prompts, seed, show=not options.json)
    if options.json:
        print_json(report(options, loaded, texts))


def read_options(arguments: Sequence[str]) -> GenerateOptions:
    """Reads the flags; their defaults are the settings of the preset."""
    preset = flag_value(arguments, "--preset", GenerateOptions.preset)
    default = replace(GenerateOptions(), sampling=preset_named(preset), preset=preset)
    return parse(GenerateOptions, arguments, "generate", default, check=GenerateOptions.check)


def given_prompts(options: GenerateOptions) -> list[str] | None:
    """Returns the prompts given by flags. Raises ValueError if a prompt's file cannot be read."""
    if options.prompt_file is None:
        return list(options.prompt) or None
    try:
        return [decoded(options.prompt_file.read_bytes(), str(options.prompt_file))]
    except OSError as error:
        raise ValueError(f"the prompt cannot be read from {options.prompt_file}: {error.strerror}") from error


def report(options: GenerateOptions, loaded: LoadedModel, texts: Sequence[Written]) -> dict[str, object]:
    """Returns the settings and the texts as plain values for JSON."""
    used = {
        "checkpoint": str(loaded.path), "encoding": loaded.tokenizer.name, "int8": options.int8,
        "sampling": options.sampling.to_dict(),
    }  # fmt: skip
    limits = {
        "max_new_tokens": None if options.max_length else options.most_new_tokens,
        "max_length": options.max_length,
    }
    return {**used, **limits, "stop": options.stop_texts, "texts": [asdict(text) for text in texts]}


def decoded(text: bytes, source: str) -> str:
    """Returns a prompt without its last line break. Raises ValueError if it is not text."""
    return decode_text(text, source).replace("\r\n", "\n").removesuffix("\n")
