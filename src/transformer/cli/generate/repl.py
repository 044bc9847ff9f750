"""The interactive mode of `generate`: a line is a prompt, and a line that starts with / is a command.

With --chat, a line is the next message of a conversation.

An error is reported in one line and changes nothing. Ctrl-C stops the text being generated, or clears the line.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import fields, replace
from typing import get_args, get_type_hints

from transformer.cli.console import one_line
from transformer.cli.generate.chat import Chat
from transformer.cli.generate.notices import notices
from transformer.cli.generate.options import WritingOptions
from transformer.cli.generate.output import Pen
from transformer.config import SAMPLING_PRESETS, SamplingConfig, near_miss, seed_problems
from transformer.config_base import from_text
from transformer.presets import sampling_preset
from transformer.sampling import is_greedy

HELLO = """\
Type the start of a text and press Enter; an empty line starts a new text. Ctrl-C stops the text, Ctrl-D exits.
/help lists the commands, such as /preset creative, /temperature 0.7 and /again."""
HELLO_CHAT = """\
Type a message and press Enter. Ctrl-C stops the answer, Ctrl-D exits.
/help lists the commands, such as /clear for a new conversation and /again for another answer."""
SAMPLING = {f"/{setting.name.replace('_', '-')}": setting.name for setting in fields(SamplingConfig)}
COMMANDS = {
    "/help": "",
    "/preset": f"NAME: {', '.join(SAMPLING_PRESETS)}",
    **dict.fromkeys(SAMPLING, "VALUE"),
    "/seed": "N: seed of the next text; random: a new one",
    "/length": "N: maximum number of new tokens; also /max-new-tokens",
    "/max-length": "N: maximum length with the prompt, instead of /length",
    "/num-samples": "N: texts for each prompt",
    "/stop": r"TEXT: add a stop string, with \n for a line break; without TEXT: remove all",
    "/settings": "show the settings",
    "/again": "continue the same prompt with the next seed",
    "/quit": "or Ctrl-D",
}
CHAT_COMMANDS = {
    "/clear": "start a new conversation",
    "/system": "TEXT: start a new conversation with this system message; without TEXT: with none",
    "/again": "replace the last answer, with the next seed",
}
ALIASES = {"/max-new-tokens": "/length", "/exit": "/quit"}
NEED_A_VALUE = {"/preset", "/seed", "/length", "/max-length", "/num-samples", *SAMPLING}
VALUES = {
    "/preset": tuple(SAMPLING_PRESETS),
    "/strategy": get_args(get_type_hints(SamplingConfig)["strategy"]),
    "/seed": ("random",),
}


class Shell:
    """Reads lines until the end; keeps the settings, the next seed and the last prompt."""

    def __init__(self, pen: Pen, options: WritingOptions, next_seed: int, read: Callable[[], str]) -> None:
        self.pen, self.options, self.next_seed, self.read = pen, options, next_seed, read
        self.last_prompt: str | None = None

    def run(self) -> None:
        self.pen.say(HELLO if self.pen.chat is None else HELLO_CHAT)
        while True:
            line = None
            try:
                line = self.read()
                if command_in(line.strip())[0] == "/quit":
                    return
                self.handle(line)
            except EOFError:
                return
            except KeyboardInterrupt:
                if line is not None:
                    self.pen.say("stopped")
            except ValueError as error:
                self.pen.say(f"error: {one_line(str(error))}")

    def handle(self, line: str) -> None:
        """Continues a prompt, or runs a command. Raises ValueError for a wrong command."""
        name, value = command_in(line)
        if name:
            self.command(name, value)
        elif self.pen.chat is None or line.strip():
            self.write(line[1:] if line.startswith("//") else line)

    def write(self, prompt: str) -> None:
        """Continues the prompt with the next seed."""
        seed, self.next_seed = self.next_seed, self.next_seed + self.options.num_samples
        if seed_problems(self.next_seed + self.options.num_samples - 1):
            self.next_seed = 0  # after the last seed comes the first
        self.last_prompt = prompt
        self.pen.write(self.options, [prompt], seed)

    def command(self, name: str, value: str) -> None:
        """Runs a command."""
        word = value.strip()
        if name in NEED_A_VALUE and not word:
            self.pen.say(f"{name} {COMMANDS[name]}")
            name = "/settings"
        match name:
            case "/help":
                known = commands(self.pen).items()
                self.pen.say("\n".join(f"{command:<21}{meaning}" for command, meaning in known))
                self.pen.say("Type // for a text that starts with /. Alt-Enter inserts a line break, Tab completes.")
            case "/preset":
                self.change(preset=word, sampling=sampling_preset(word))
            case "/seed":
                self.change(seed=secrets.randbits(32) if word == "random" else from_text(int, word))
            case "/length":
                self.change(max_new_tokens=from_text(int, word), max_length=None)
            case "/max-length":
                self.change(max_length=from_text(int, word), max_new_tokens=None)
            case "/num-samples":
                self.change(num_samples=from_text(int, word))
            case "/stop":
                self.change(stop=(*self.options.stop, value) if value else ())
            case "/settings":
                self.change()
            case "/again":
                self.again()
            case "/clear" | "/system" if self.pen.chat is not None:
                self.start_chat(self.pen.chat, (value or None) if name == "/system" else self.pen.chat.system)
            case _ if name in SAMPLING:
                typed = from_text(get_type_hints(SamplingConfig)[SAMPLING[name]], word)
                self.change(sampling=replace(self.options.sampling, **{SAMPLING[name]: typed}))
            case _:
                meant = near_miss(name, commands(self.pen))
                raise ValueError(f"there is no command {name}{meant} (/help lists them; // starts a text with /)")

    def again(self) -> None:
        """Continues the last prompt again, or answers the last message again. Raises ValueError if there is none."""
        if self.last_prompt is None:
            raise ValueError("/again: there is no text yet")
        if is_greedy(self.options.sampling):
            self.pen.say("greedy decoding is deterministic: the text is the same")
        if self.pen.chat is not None:
            self.pen.chat.take_back(self.last_prompt)
        self.write(self.last_prompt)

    def start_chat(self, chat: Chat, system: str | None) -> None:
        """Starts a new conversation."""
        chat.start(system)
        self.last_prompt = None
        self.pen.say("a new conversation" + (f" with the system message {system!r}" if system else ""))

    def change(self, **settings: object) -> None:
        """Changes these settings and prints all. Raises ConfigError, and changes nothing, if one is wrong."""
        self.options = replace(self.options, **settings).check()  # type: ignore[arg-type]
        if "seed" in settings:
            self.next_seed = self.options.first_seed()
        for sentence in notices(self.options, self.next_seed, self.pen.loaded.tokenizer.vocab_size):
            self.pen.say(sentence)


def commands(pen: Pen) -> dict[str, str]:
    """Returns the commands by name, each with its meaning."""
    if pen.chat is None:
        return COMMANDS
    others = {name: meaning for name, meaning in COMMANDS.items() if name not in ("/num-samples", *CHAT_COMMANDS)}
    return {**CHAT_COMMANDS, **others}


def command_in(line: str) -> tuple[str, str]:
    """Returns the name of the command in a line, and the text after it; two empty texts if the line is a prompt.

    >>> command_in("/Temperature 0.7"), command_in("//etc"), command_in("/quit now")
    (('/temperature', '0.7'), ('', ''), ('/quit', 'now'))
    """
    if not line.startswith("/") or line.startswith("//") or "\n" in line:
        return "", ""
    name, _, value = line.partition(" ")
    return ALIASES.get(name.lower(), name.lower()), value
