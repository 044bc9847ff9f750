"""The generate command; commands/generate.py documents it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict

from transformer.cli.console import console
from transformer.cli.formatting import describe
from transformer.cli.generate.chat import Chat
from transformer.cli.generate.notices import notices
from transformer.cli.generate.options import GenerateOptions
from transformer.cli.generate.output import Pen, Written
from transformer.cli.generate.repl import VALUES, Shell, commands
from transformer.cli.json_output import print_json
from transformer.cli.models import open_model, weight_format
from transformer.config import SAMPLING_PRESETS, Weights
from transformer.text import decode_text
from transformer.text.chat_template import has_template
from transformer.training.checkpoint import LoadedModel


def main(options: GenerateOptions) -> None:
    if options.list_presets:
        for name, preset in SAMPLING_PRESETS.items():
            print(f"{name:<14} {describe(preset)}")
        return
    prompts = given_prompts(options)
    weights = weight_format(options.weights, options.int8)
    loaded, seed = open_model(options.checkpoint, options.device, weights, options.kernels), options.first_seed()
    pen = Pen(loaded, console(stderr=True), options.compile)
    pen.say(loaded.description)
    if options.chat:
        pen.chat = conversation(options, pen)
    for sentence in notices(options, seed, loaded.tokenizer.vocab_size):
        pen.say(sentence)
    if options.is_interactive:
        from transformer.cli.generate.line_input import (
            line_reader,  # imports prompt_toolkit, which only this mode needs
        )

        if not options.chat and has_template(loaded.tokenizer):
            pen.say("the model has a chat template: with --chat it answers messages, without it continues your text")
        Shell(pen, options, seed, line_reader(tuple(commands(pen)), VALUES)).run()
        return
    if prompts is None:
        pen.say("reading the prompt from standard input, up to its end")
        prompts = [decoded(sys.stdin.buffer.read(), "standard input")]
    texts = pen.write(options, prompts, seed, show=not options.json)
    if options.json:
        print_json(report(options, weights, loaded, texts))


def conversation(options: GenerateOptions, pen: Pen) -> Chat:
    """Returns a new conversation. Raises ValueError if the model has no chat template, or it has no system message."""
    if not has_template(pen.loaded.tokenizer):
        raise ValueError(
            f"{pen.loaded.path} has no chat template, so it cannot answer messages: leave out --chat, or take a model "
            "that was trained to, such as hf:HuggingFaceTB/SmolLM2-135M-Instruct"
        )
    return Chat(pen.loaded.tokenizer, pen.context, options.system, pen.say)


def given_prompts(options: GenerateOptions) -> list[str] | None:
    """Returns the prompts given by flags. Raises ValueError if a prompt's file cannot be read."""
    if options.prompt_file is None:
        return list(options.prompt) or None
    try:
        return [decoded(options.prompt_file.read_bytes(), str(options.prompt_file))]
    except OSError as error:
        raise ValueError(f"the prompt cannot be read from {options.prompt_file}: {error.strerror}") from error


def report(
    options: GenerateOptions, weights: Weights, loaded: LoadedModel, texts: Sequence[Written]
) -> dict[str, object]:
    """Returns the settings and the texts as plain values for JSON."""
    used = {
        "checkpoint": str(loaded.path), "encoding": loaded.tokenizer.name, "int8": weights == "int8",
        "weights": weights, "sampling": options.sampling.to_dict(),
    }  # fmt: skip
    limits = {
        "max_new_tokens": None if options.max_length else options.most_new_tokens,
        "max_length": options.max_length,
    }
    chat = {"chat": True, "system": options.system} if options.chat else {}
    return {**used, **chat, **limits, "stop": options.stop_texts, "texts": [asdict(text) for text in texts]}


def decoded(text: bytes, source: str) -> str:
    """Returns a prompt without its last line break. Raises ValueError if it is not text."""
    return decode_text(text, source).replace("\r\n", "\n").removesuffix("\n")
