"""The console: everything that depends on where the output of a command goes.

A stream may be a terminal, a file, a pipe whose reader has ended, a full disk, or missing. Every command prints through
this module, so that each case is handled once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and characters that change the direction of a line; line breaks and tabs are not among them."""
REPORT_SECONDS = 30.0
"""How long the other processes of a torchrun wait for local rank 0 to report an error."""


class LineConsole(Console):
    """rich's console; output that can no longer be written raises BrokenPipeError instead of ending the process.

    Control characters in what it prints are shown as escapes; its own, for colours and bars, stay. So nothing that a
    checkpoint, a model or the hub contains can command the terminal, whoever prints it.
    """

    def on_broken_pipe(self) -> None:
        raise  # the error that rich is handling

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control is None and CONTROL.search(segment.text):
                text = CONTROL.sub(lambda found: printable(found[0]), segment.text)
                yield Segment(text, segment.style)
            else:
                yield segment


def console(stderr: bool = False) -> Console:
    """Returns a console for standard output or standard error, without colours if lines cannot be redrawn there.

    `is_terminal` of the console means can_redraw(). Under torchrun only the console of rank 0 prints.
    """
    stream = sys.stderr if stderr else sys.stdout
    is_file = not stream.isatty()  # then lines are never wrapped
    is_quiet = rank_prefix() not in ("", "rank 0: ")
    return LineConsole(
        highlight=False,
        markup=False,  # a file name may contain brackets: notes[old].txt
        emoji=False,
        force_terminal=can_redraw(stream),
        width=140 if is_file else None,
        soft_wrap=is_file,
        quiet=is_quiet,
        stderr=stderr,
    )


def can_redraw(stream: TextIO | None) -> bool:
    """Whether the stream is a terminal that can redraw a line: then progress is animated, otherwise it is lines.

    Screen readers and serial consoles set TERM=dumb.
    """
    return stream is not None and stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


def printable(text: str) -> str:
    r"""Returns a text from outside with its control characters written as escapes.

    A checkpoint or an answer of the hub may contain terminal commands, which would move the cursor or hide output.

    >>> print(printable("best\x1b[2J of\n3"))
    best\x1b[2J of\n3
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def varying_parts(names: Sequence[str]) -> list[str]:
    """Returns the names without what all of them begin and end with, up to a separator.

    >>> varying_parts(["lr=0.01,layers=2", "lr=0.01,layers=4"]), varying_parts(["a/m_1_byte.pt", "a/m_10_byte.pt"])
    (['2', '4'], ['1', '10'])
    """
    if len(set(names)) < 2:
        return list(names)
    start = len(re.sub("[^/,=_]*$", "", _common_start(names)))
    ends = _common_start([name[start:][::-1] for name in names])[::-1]
    end = re.search(r"[/,_]|\.pt$", ends)
    stop = len(ends) - end.start() if end else 0
    parts = [name[start : len(name) - stop] for name in names]
    return parts if all(parts) else list(names)


def _common_start(names: Sequence[str]) -> str:
    least, most = min(names), max(names)
    return next((least[:place] for place, letter in enumerate(least) if letter != most[place]), least)


def fitting_table(
    title: str, columns: Mapping[str, Sequence[str]], width: int, text: Sequence[str], optional: Sequence[str]
) -> Table:
    """Returns a table from the cells below each heading. The columns `text` are left-justified, the others numbers.

    If it is wider than `width`, headings are wrapped, the first column in `text` shows only the varying parts of its
    cells, and then the `optional` columns are left out: empty ones first, then in their order. Of what is left, only a
    name that is still too long is broken.
    """
    shown = {heading: list(cells) for heading, cells in columns.items()}

    def widths() -> dict[str, int]:
        return {heading: max(map(len, [*heading.split(), *cells]), default=0) for heading, cells in shown.items()}

    def is_too_wide() -> bool:
        return 1 + sum(3 + needed for needed in widths().values()) > width

    is_narrow = 1 + sum(3 + max(len(heading), widths()[heading]) for heading in shown) > width
    if is_too_wide():
        shown[text[0]] = varying_parts(shown[text[0]])
    for heading in sorted(optional, key=lambda heading: any(shown.get(heading, ()))):
        if is_too_wide():
            shown.pop(heading, None)
    table = Table(title=title, title_justify="left")
    for heading, needed in widths().items():
        justify: Literal["left", "right"] = "left" if heading in text else "right"
        is_fixed = is_narrow and not (heading == text[0] and is_too_wide())
        table.add_column(heading, justify=justify, overflow="fold", width=needed if is_fixed else None)
    for row in zip(*shown.values(), strict=True):
        table.add_row(*row)
    return table


@contextlib.contextmanager
def writing_files() -> Iterator[None]:
    """A context for writing files after the results were printed. An OSError becomes a ValueError that names --out."""
    try:
        yield
    except OSError as error:
        where = os.path.dirname(str(error.filename or "")) or "this folder"  # noqa: PTH120
        raise ValueError(f"nothing can be written to {where}: {error.strerror}; --out chooses another place") from error


def open_missing_streams() -> None:
    """Opens the null device in place of a missing standard output or error, as after `>&-` or under pythonw."""
    if sys.stdin is None:
        os.open(os.devnull, os.O_RDONLY)  # no other file may get its number; sys.stdin stays None, and is reported
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123


def flushed(status: int) -> int:
    """Writes the buffered output; returns the exit status: `status`, or that of output_lost()."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return output_lost(error, status)
    return status


def output_lost(error: OSError, status: int = 0) -> int:
    """Discards all further output, because standard output cannot be written any more; returns the exit status.

    It is `status` if the reader of a pipe has ended, as in `... | head`, and 2 with one line otherwise: a full disk.
    """
    discard_output(sys.stdout)
    if is_closed_pipe(error):
        return status
    if not status:  # otherwise an error has been reported already
        print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
    return 2


def is_closed_pipe(error: OSError) -> bool:
    """Whether the error means that the reader of a pipe has ended. Windows reports an invalid argument."""
    return isinstance(error, BrokenPipeError) or (sys.platform == "win32" and error.errno == errno.EINVAL)


def discard_output(stream: TextIO) -> None:
    """Sends standard output or error to the null device; Python would otherwise fail again when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def rank_prefix() -> str:
    """Returns "rank 3: " if torchrun started several processes, and "" for a single process.

    Clusters set WORLD_SIZE, and some RANK, for every program of a job; LOCAL_RANK comes from torchrun.
    """
    is_alone = "LOCAL_RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1"
    return "" if is_alone else f"rank {os.environ.get('RANK', '?')}: "


@contextlib.contextmanager
def reported_once(kinds: tuple[type[Exception], ...] = (ValueError,)) -> Iterator[None]:
    """A context for code that fails in the same way on all processes, such as a misspelt flag.

    Only local rank 0 of each machine reports the error. torchrun ends all processes as soon as one has ended, so the
    others wait for that.
    """
    try:
        yield
    except kinds:
        if rank_prefix() and os.environ["LOCAL_RANK"] != "0":
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(REPORT_SECONDS)
            raise SystemExit(2) from None
        raise


def one_line(text: str) -> str:
    """Returns the text with every run of white space replaced by one space, and other control characters escaped."""
    return printable(" ".join(text.split())) or "an error without a message"


def is_out_of_memory(error: Exception) -> bool:
    """Whether PyTorch reports that the memory of a device, or of the machine, is exhausted."""
    return isinstance(error, RuntimeError) and bool(re.search("out of memory|can't allocate memory", str(error)))
