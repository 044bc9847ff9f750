"""Line input at a terminal with prompt_toolkit: the keys of a shell, history, and completion by Tab.

Pasted lines are one text, and Alt-Enter inserts a line break. The history is kept in memory only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output
from prompt_toolkit.shortcuts import CompleteStyle


def line_reader(commands: Sequence[str], values: Mapping[str, Sequence[str]]) -> Callable[[], str]:
    """Returns a function that reads the next line; it completes commands and their values.

    It raises KeyboardInterrupt for Ctrl-C and EOFError for Ctrl-D.
    """
    session: PromptSession[str] = PromptSession(
        "> ",
        multiline=True,
        key_bindings=keys(),
        completer=Words(commands, values),
        complete_style=CompleteStyle.READLINE_LIKE,
        complete_while_typing=False,
        prompt_continuation="  ",
        enable_suspend=True,
        output=None if sys.stdout.isatty() else create_output(sys.stderr),  # standard output may be a file
    )
    return session.prompt


class Words(Completer):
    """Completes the names of commands, and their values."""

    def __init__(self, commands: Sequence[str], values: Mapping[str, Sequence[str]]) -> None:
        self.commands, self.values = commands, values

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        name, space, value = document.text_before_cursor.partition(" ")
        typed, words = (value, self.values.get(name, ())) if space else (name, [f"{word} " for word in self.commands])
        if name.startswith("/"):
            yield from (Completion(word, -len(typed)) for word in words if word.startswith(typed))


def keys() -> KeyBindings:
    """Returns the differences from prompt_toolkit's keys: Enter also ends a text of several lines."""
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings
