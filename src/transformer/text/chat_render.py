"""Fills in a chat template, in a process of its own: chat_template.py runs this file as a script.

A template is a program in the language Jinja, written by strangers. It is run with the same extensions of the language
as in `transformers`, in Jinja's sandbox, from which a program reaches neither files nor the interpreter. The process
is limited in memory, and ended by the one that started it if it takes too long.

Standard input is a JSON object with template, variables and memory_bytes, standard output one with text or error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MOST_CHARACTERS = 2**24
"""Of the text of a chat: far more than fits into the context of any model."""
MOST_OF_AN_ERROR = 400
"""Characters of an error that are reported."""


class Generation(Extension):
    """`{% generation %} ... {% endgeneration %}` marks the assistant's text, for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class Names(Namespace):
    """Jinja's namespace, without names that begin with an underscore."""

    def __init__(*args: Any, **names: Any) -> None:  # an argument may be called `self`
        found = dict(*args[1:], **names)
        for name in found:
            _check_name(name)
        Namespace.__init__(args[0], found)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


class Dict:
    """`dict` in a template: it makes dictionaries, and is not the class itself."""

    def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
        return dict(*args, **values)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _check_name(name: object) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"the name {name!r} in a namespace begins with an underscore")


def tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Replaces Jinja's filter, which writes < and & as HTML does."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def fill(template: str, variables: Mapping[str, Any]) -> str:
    """Returns the text of a template. Raises any error: of the language, of the template, of memory."""
    runs = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    runs.filters["tojson"] = tojson
    own = {"raise_exception": raise_exception, "strftime_now": strftime_now, "namespace": Names, "dict": Dict()}
    runs.globals.update(own)
    text = runs.from_string(template).render(variables)
    if len(text) > MOST_CHARACTERS:
        raise TemplateError(f"it writes {len(text):,} characters, and at most {MOST_CHARACTERS:,} are read")
    return text


def limit_memory(most_bytes: int) -> None:
    """Limits the memory of this process, on systems that can."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))


def answer(given: Mapping[str, Any]) -> dict[str, str]:
    """Returns the text, or the error in words."""
    limit_memory(given["memory_bytes"])
    try:
        return {"text": fill(given["template"], given["variables"])}
    except TemplateSyntaxError as error:
        reason = f"line {error.lineno}: {error.message}"
    except MemoryError:
        reason = f"it needs more than {given['memory_bytes'] >> 20} MiB of memory"
    except Exception as error:
        kind = "" if type(error) is TemplateError else f"{type(error).__name__}: "  # its own: raise_exception
        reason = f"{kind}{error}"
    return {"error": reason[:MOST_OF_AN_ERROR]}


if __name__ == "__main__":
    with open(0, "rb") as read:
        found = answer(json.load(read))
    with open(1, "wb") as written:
        written.write(json.dumps(found).encode())
