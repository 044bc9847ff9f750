"""Command-line options: a dataclass filled from flags with argparse, and its help text.

A field becomes a flag, the text below it the flag's help: `max_steps: int | None` becomes --max-steps INT. The fields
of a nested dataclass, such as a group of settings, have their flags under a heading of their own.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import inspect
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from transformer.cli.typed_texts import with_texts
from transformer.config import ConfigError, near_miss
from transformer.config_base import from_text, size_problems

Options = TypeVar("Options")
MAX_HELP_WIDTH = 110
HELP = {"-h", "--help"}
PATHS = {"checkpoint_dir", "cache_dir", "dataset", "init_from"}
"""Settings that are texts and may be paths: like paths, they may begin with ~, which shells leave in `--out=~/page`."""
DASHES = "\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}"
"""Characters that text processors and web pages put in place of hyphens."""
POSITIONAL, REPEATED, HIDDEN = ({"kind": kind} for kind in ("positional", "repeated", "hidden"))
"""Metadata of fields: words without a flag; a flag that is given once for each value; no flag at all."""


def program() -> str:
    """Returns the name under which the commands were started: "transformer" or "main.py"."""
    return "transformer" if Path(sys.argv[0]).stem == "transformer" else "main.py"


def command_line() -> str:
    """Returns the words that come before a command's name in an example for the user to copy."""
    return "transformer" if program() == "transformer" else "uv run python main.py"


def parse(
    default: Options,
    arguments: Sequence[str],
    name: str,
    check: Callable[[Options], object] | None = None,
    first: Sequence[str] = (),
    guide: str | None = None,
) -> Options:
    """Returns `default` with the values given by flags; of a flag given twice, the last value counts.

    `name` is the command's. Raises ValueError with a one-line message for an unknown flag, a wrong value, a number
    above its bound, or a problem found by `check`. `--help` prints the help text and exits; there the flags `first`
    come first, and `guide` last.
    """
    settings = list(_settings(default, with_texts=not HELP.isdisjoint(arguments)))
    options = _filled(default, _given(_parser(default, settings, name, first, guide), settings, arguments))
    if found := size_problems(options):
        raise ConfigError(found)
    if check is not None:
        check(options)
    return options


def given_values(default: object, arguments: Sequence[str], name: str) -> dict[str, Any]:
    """Returns the values given by flags, by the name of the field: no two fields have the same, nested ones included.

    A preset, which sets the defaults of the other flags, is read in this way before parse() is called, by the same
    rules. --help is ignored, and errors are raised as by parse().
    """
    settings = list(_settings(default))
    return _given(_parser(default, settings, name), settings, [word for word in arguments if word not in HELP])


def _given(parser: _Parser, settings: Sequence[_Setting], arguments: Sequence[str]) -> dict[str, Any]:
    words = [re.sub("^--[^=]+", lambda flag: flag[0].replace("_", "-"), word) for word in with_texts(arguments)]
    known, unknown = parser.parse_known_intermixed_args(words)
    if unknown and unknown[0].startswith("-"):
        flag = unknown[0].partition("=")[0]
        if flag in [setting.flag for setting in settings if setting.kind == "positional"]:
            parser.error(f"{flag} is no option here: give its value alone, without a flag")
        close = difflib.get_close_matches(flag, [setting.flag for setting in settings], n=1)
        parser.error(f"there is no option {flag}{f'; did you mean {close[0]}?' if close else ''}")
    if unknown:
        pasted = "; options begin with two ASCII hyphens, --" if unknown[0].startswith(tuple(DASHES)) else ""
        parser.error(f"unexpected word {unknown[0]!r}{pasted}")
    for setting in settings:
        if getattr(known, setting.field.name, None) == [] and get_origin(setting.hint) is not tuple:
            parser.error(f"{setting.flag}=-- gives no value: -- marks the end of the options")
    return vars(known)


def _filled(options: Options, given: dict[str, Any]) -> Options:
    """Returns the options with the given values, those of nested dataclasses included."""
    changes: dict[str, Any] = {}
    for own in fields(options):  # type: ignore[arg-type]
        value = getattr(options, own.name)
        if is_dataclass(value):
            changes[own.name] = _filled(value, given)
        elif own.name in given:
            changes[own.name] = tuple(given[own.name]) if isinstance(given[own.name], list) else given[own.name]
    return replace(options, **changes)  # type: ignore[type-var]


class _Setting(NamedTuple):
    """A field that has a flag, or takes words without one."""

    heading: str
    field: Field[Any]
    value: Any
    hint: Any
    text: str

    @property
    def flag(self) -> str:
        return f"--{self.field.name.replace('_', '-')}"

    @property
    def usage(self) -> str:
        """How a positional argument is shown: `CHECKPOINT`, or `CHECKPOINTS ...` for several."""
        several = " ..." if isinstance(self.value, tuple) else ""
        return f"{self.field.name.upper()}{several}"

    @property
    def kind(self) -> str:
        return str(self.field.metadata.get("kind", ""))

    @property
    def help(self) -> str:
        """The text below the field, with the default."""
        shown = " ".join(map(str, self.value)) or "none" if isinstance(self.value, tuple) else str(self.value)
        shown = shown if shown and shown.isprintable() else repr(shown)
        return f"{self.text} (default: {shown})".replace("%", "%%")


def _settings(options: object, heading: str = "", with_texts: bool = False) -> Iterator[_Setting]:
    """Yields all settings; those of nested dataclasses come last."""
    cls, nested = type(options), []
    hints, texts = get_type_hints(cls), _texts(cls) if with_texts else {}
    for own in fields(options):  # type: ignore[arg-type]
        value = getattr(options, own.name)
        if is_dataclass(value):
            first_sentence = re.split(r"\.(?:\s|$)", type(value).__doc__ or "")[0]
            nested.append((value, own.metadata.get("heading", first_sentence)))
        elif own.metadata.get("kind") != "hidden":
            yield _Setting(heading, own, value, hints[own.name], texts.get(own.name, ""))
    for value, title in nested:
        yield from _settings(value, title, with_texts)


def _texts(cls: type) -> dict[str, str]:
    """Returns the texts below the fields of a dataclass and of those that it inherits from, by the field's name."""
    found: dict[str, str] = {}
    for base in filter(is_dataclass, reversed(cls.__mro__)):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for line, below in zip(tree.body, tree.body[1:], strict=False):
            match line, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found


class _Parser(argparse.ArgumentParser):
    """argparse's parser, whose errors are ValueErrors."""

    def print_help(self, file: Any = None) -> None:
        print(self.format_help(), end="")  # argparse's own would ignore a full disk

    def error(self, message: str) -> NoReturn:
        if flag := re.search("argument (--[a-z0-9-]+): expected one argument", message):
            message += f"; a value that begins with - is written {flag[1]}=VALUE"
        raise ValueError(f"{message} (see {self.prog} --help)")


def _parser(
    default: object, settings: Sequence[_Setting], name: str, first: Sequence[str] = (), guide: str | None = None
) -> _Parser:
    """Returns the parser: the options `first`, the command's own, and those of each nested group."""
    parser = _Parser(
        prog=f"{program()} {name}",
        description=inspect.cleandoc(type(default).__doc__ or ""),
        epilog=guide,
        formatter_class=partial(
            argparse.HelpFormatter,
            max_help_position=26,
            width=min(shutil.get_terminal_size().columns, MAX_HELP_WIDTH),
        ),
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        add_help=not first,
    )
    words = [f"[{setting.usage}]" for setting in settings if setting.kind == "positional"]
    parser.usage = " ".join([parser.prog, *words, "[OPTIONS]"])
    places = {name: place for place, name in enumerate(first)}
    groups: dict[str, Any] = {}
    for setting in sorted(settings, key=lambda setting: places.get(setting.field.name, len(places))):
        heading = "start with these" if setting.field.name in places else setting.heading
        if heading not in groups:
            groups[heading] = parser.add_argument_group(heading or "further options") if first or heading else parser
        _add(groups[heading], setting)
    if first:
        groups[""].add_argument("-h", "--help", action="help", help="show this help message and exit")
    return parser


def _add(group: Any, setting: _Setting) -> None:
    """Adds a setting to a group of the parser."""
    if setting.hint is bool:
        action = argparse.BooleanOptionalAction
        group.add_argument(setting.flag, dest=setting.field.name, action=action, help=setting.help)
        return
    is_tuple = get_origin(setting.hint) is tuple
    hint = get_args(setting.hint)[0] if is_tuple else setting.hint
    (kind,) = (one for one in get_args(hint) or (hint,) if one is not NoneType) if _is_union(hint) else (hint,)
    metavar = f"{{{','.join(get_args(kind))}}}" if get_origin(kind) is Literal else kind.__name__.upper()
    expands = kind is Path or setting.field.name in PATHS
    convert = partial(_converted, hint, kind, expands=expands)
    details: dict[str, Any] = {"type": convert, "metavar": metavar, "help": setting.help}
    if setting.kind == "positional":
        nargs = "*" if is_tuple else "?"
        details["metavar"] = setting.field.name.upper()
        group.add_argument(setting.field.name, nargs=nargs, default=setting.value, **details)
    elif setting.kind == "repeated":
        group.add_argument(setting.flag, dest=setting.field.name, action="append", **details)
    else:
        group.add_argument(setting.flag, dest=setting.field.name, nargs="*" if is_tuple else None, **details)


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def _converted(hint: Any, kind: Any, word: str, expands: bool) -> Any:
    """Returns the value of a word. Raises ArgumentTypeError if it has none of this kind."""
    value = from_text(hint, word)
    if value is None:
        return None
    if get_origin(kind) is Literal:
        if word not in get_args(kind):
            known = ", ".join(get_args(kind))
            raise argparse.ArgumentTypeError(f"{word!r} is not one of {known}{near_miss(word, get_args(kind))}")
        return word
    if kind in (int, float):
        if isinstance(value, str):
            raise argparse.ArgumentTypeError(f"{word!r} is not {'a whole' if kind is int else 'a'} number")
        return value
    if kind is Path and not word:  # as a path it would be this folder
        raise argparse.ArgumentTypeError(
            "the path is empty, as from an unset shell variable: give one, or leave it out"
        )
    return kind(os.path.expanduser(word) if expands else word)  # noqa: PTH111
