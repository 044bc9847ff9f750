"""The exercises in reading order: which stub goes with which properties, and what happens to a finished one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformer.config import near_miss
from transformer.exercises.properties import (
    accumulation,
    attention,
    block,
    cache,
    causal_mask,
    heads,
    induction,
    loss,
    perplexity,
    positions,
    sampling,
    schedule,
)
from transformer.exercises.property import Property

STUBS = Path(__file__).parent / "stubs"


@dataclass(frozen=True)
class Exercise:
    """One file to fill in."""

    number: int
    name: str
    title: str
    lesson: str
    """The file of this package to read before."""
    properties: tuple[Property, ...]
    one_is_enough: bool = False
    """Whether one of its functions is enough."""

    @property
    def file_name(self) -> str:
        """The name of the file in the reader's folder."""
        return f"{self.number:02}_{self.name}.py"

    @property
    def stub(self) -> Path:
        """The file that is copied there."""
        return STUBS / f"{self.name}.py"

    @property
    def functions(self) -> list[str]:
        """What the reader writes, in the order of the check."""
        return list(dict.fromkeys(holds.about for holds in self.properties))


def exercises() -> tuple[Exercise, ...]:
    """Returns all, in reading order."""
    rows: tuple[tuple[str, str, str, tuple[Property, ...]], ...] = (
        ("causal_mask", "the causal mask", "attention.py", causal_mask.PROPERTIES),
        ("attention", "attention", "attention.py", attention.PROPERTIES),
        ("heads", "cut into heads, and back", "attention.py", heads.PROPERTIES),
        ("cache", "the key-value cache", "kv_cache.py", cache.PROPERTIES),
        ("positions", "positions: rotary or sinusoidal", "embeddings.py", positions.PROPERTIES),
        ("block", "layer norm and the block", "block.py", block.PROPERTIES),
        ("loss", "the loss", "loss.py", loss.PROPERTIES),
        ("sampling", "sampling filters", "sampling.py", sampling.PROPERTIES),
        ("perplexity", "perplexity", "perplexity.py", perplexity.PROPERTIES),
        ("accumulation", "gradient accumulation", "training_utils.py", accumulation.PROPERTIES),
        ("schedule", "the learning-rate schedule", "scheduler.py", schedule.PROPERTIES),
        ("induction", "an induction head, set by hand", "interpret/induction_by_hand.py", induction.PROPERTIES),
    )
    return tuple(
        Exercise(number, name, title, lesson, properties, one_is_enough=name == "positions")
        for number, (name, title, lesson, properties) in enumerate(rows, start=1)
    )


EXERCISES = exercises()


def exercise_called(word: str) -> Exercise:
    """Returns the exercise with this name, number or file. Raises ValueError if there is none.

    >>> [exercise_called(word).name for word in ("attention", "2", "exercises/02_attention.py")]
    ['attention', 'attention', 'attention']
    """
    wanted = Path(word).name.removesuffix(".py")
    for one in EXERCISES:
        if wanted in (one.name, str(one.number), f"{one.number:02}", one.file_name.removesuffix(".py")):
            return one
    names = [one.name for one in EXERCISES]
    raise ValueError(f"there is no exercise {word!r}{near_miss(wanted, names)}: the names are {', '.join(names)}")
