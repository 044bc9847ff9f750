"""Errors that end a training run between two steps, with its state saved or still valid."""

from __future__ import annotations


class TrainingError(ValueError):
    """The run cannot continue with these settings; the message says what to change."""


class TextError(ValueError):
    """The text failed on this process of several; all processes are between the same two steps."""


class OtherProcessError(ValueError):
    """Another process of the run failed and reports why; all processes are between the same two steps."""
