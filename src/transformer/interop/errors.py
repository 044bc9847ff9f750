"""The error of everything that reads the files of other programs."""

from __future__ import annotations


class SourceError(ValueError):
    """A foreign file or repository cannot be used; the message is one line that names the file and the reason."""
