"""The options of the exercises command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformer.cli.options import POSITIONAL, parse
from transformer.config import near_miss

FOLDER = Path("exercises")
ACTIONS = ("check", "hint")


@dataclass(frozen=True)
class ExercisesOptions:
    """Write parts of the model yourself, and have them checked.

    Without an action: make the folder of files to fill in, and show the progress.
    """

    action: tuple[str, ...] = field(default=(), metadata=POSITIONAL)
    """check [NAME ...]: check these exercises, or all. hint [NAME]: a hint about the first thing that is wrong."""
    folder: Path = FOLDER
    """The folder of your files. Files that are there are never changed; delete one to get its stub again."""
    seconds: float = 10.0
    """Time limit for each property that is checked."""

    @property
    def names(self) -> tuple[str, ...]:
        """The exercises that are named."""
        return self.action[1:]


def read_options(arguments: Sequence[str]) -> ExercisesOptions:
    return parse(ExercisesOptions(), arguments, "exercises", check)


def check(options: ExercisesOptions) -> None:
    """Raises ValueError for an action that does not exist, and for a time limit that is none."""
    if options.action and options.action[0] not in ACTIONS:
        word = options.action[0]
        raise ValueError(f"there is no action {word!r}{near_miss(word, ACTIONS)}; give check [NAME ...] or hint [NAME]")
    if options.action[:1] == ("hint",) and len(options.names) > 1:
        raise ValueError(f"hint takes one name, not {' '.join(options.names)!r}")
    if not options.seconds > 0:
        raise ValueError(f"--seconds {options.seconds:g} must be above 0")
