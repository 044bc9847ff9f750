"""Output that may disappear during a run: the reader of a pipe ends, a terminal is closed, a disk is full."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast

from transformer.cli.console import discard_output


class LastingStream:
    """A text stream that discards its output once its file takes no more; `lost` is called then."""

    def __init__(self, stream: TextIO, lost: Callable[[OSError], object]) -> None:
        self._stream, self._lost, self._is_lost = stream, lost, False

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, act: Callable[[], object]) -> None:
        if self._is_lost:
            return
        try:
            act()
        except OSError as error:
            self._is_lost = True
            with contextlib.suppress(OSError, ValueError):  # what is still in the buffer, and Python's flush at exit
                discard_output(self._stream)
                self._stream.flush()
            self._lost(error)


@contextlib.contextmanager
def lasting_output(advice: str) -> Iterator[None]:
    """Until the end of the block, standard output and error discard what can no longer be written.

    If standard output is lost, one line on standard error says so, with `advice`.
    """
    out, err = sys.stdout, sys.stderr

    def lost(error: OSError) -> None:
        print(f"standard output can no longer be written ({error.strerror}): {advice}", file=sys.stderr, flush=True)

    lasting = LastingStream(out, lost), LastingStream(err, lambda error: None)
    sys.stdout, sys.stderr = cast(tuple[TextIO, TextIO], lasting)
    try:
        yield
    finally:
        lasting[0].flush()
        sys.stdout, sys.stderr = out, err
