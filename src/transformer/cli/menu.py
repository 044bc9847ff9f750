"""The menu that appears if no command is given at a terminal: a choice by arrow keys."""

from __future__ import annotations

from prompt_toolkit.shortcuts import choice

from transformer.cli.export_page.options import lesson_path
from transformer.cli.options import command_line

LESSON = ("lesson page",)
CHOICES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("demo",), "train, plot, evaluate and generate offline, in minutes"),
    (("train", "--quick"), "train a small model on FineWeb-Edu; needs a network"),
    (("generate",), "write text with the latest checkpoint"),
    (("evaluate",), "perplexity of the latest checkpoint"),
    (("compare",), "rank all checkpoints"),
    (("interpret",), "what the heads of the latest checkpoint attend to"),
    (LESSON, "how a transformer works, in the browser"),
    (("exercises",), "write its parts yourself, and have them checked"),
)
"""What can be chosen: the arguments of a command, and one line of help."""


def choose() -> list[str]:
    """Asks with a menu; returns the chosen command with its arguments, or [] after showing the lesson page's address.

    Raises KeyboardInterrupt for Ctrl-C.
    """
    options = [(arguments, f"{' '.join(arguments):<14} {about}") for arguments, about in CHOICES]
    chosen = choice("Choose with the arrow keys and Enter; Ctrl-C leaves.", options=options)
    if chosen == LESSON:
        print(f"open in a browser: {lesson_path().as_uri()}")
        return []
    print(f"{command_line()} {' '.join(chosen)}\n", flush=True)
    return list(chosen)
