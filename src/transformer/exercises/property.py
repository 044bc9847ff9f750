"""A property: a statement about a function that is true of every correct version, and a search for a counterexample.

A property takes any object that has the function under its name: the module of a reader, or one of this project. It
tries small cases in increasing size and raises Broken with the first that contradicts the statement, in words:

>>> from types import SimpleNamespace
>>> @about("double", hint="What is 2 * 1?")
... def doubles(solution):
...     "A number becomes twice as large."
...     for number in range(3):
...         if (found := solution.double(number)) != 2 * number:
...             raise Broken(f"double({number}) is {found}, not {2 * number}")
>>> doubles(SimpleNamespace(double=lambda number: number + number))
>>> doubles(SimpleNamespace(double=lambda number: number**2))
Traceback (most recent call last):
transformer.exercises.property.Broken: double(1) is 1, not 2

The rest of the file is what such messages are made of: shapes in letters, and the first number that differs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TOLERANCE = 1e-5
"""Largest difference between numbers that count as equal, for numbers up to 1; float32 and another order of sums."""


class Broken(Exception):  # noqa: N818
    """A property does not hold; the message is the smallest example found."""


@dataclass(frozen=True)
class Property:
    """What must be true of the function (or class) `about`; calling it with a solution raises Broken if it is not."""

    about: str
    statement: str
    hint: str
    check: Callable[[Any], None]

    def __call__(self, solution: Any) -> None:
        self.check(solution)

    @property
    def name(self) -> str:
        """For test reports."""
        return self.check.__name__


def about(function: str, hint: str) -> Callable[[Callable[[Any], None]], Property]:
    """A decorator: makes a Property of a function whose docstring is the statement."""

    def make(check: Callable[[Any], None]) -> Property:
        return Property(function, " ".join((check.__doc__ or "").split()), " ".join(hint.split()), check)

    return make


def expect_tensor(found: object, call: str, **sizes: int) -> Tensor:
    """Returns `found` if it is a tensor of these sizes, given by letter in their order. `call` names where it is from.

    A letter that occurs twice is given once more with _ behind it.

    >>> expect_tensor(torch.zeros(3, 2), "f(x)", T=2, S=3)
    Traceback (most recent call last):
    transformer.exercises.property.Broken: f(x): the shape is (3, 2), that is (S, T), instead of (T, S) = (2, 3)
    """
    if found is None:
        raise Broken(f"{call} returned nothing: does the function end with `return`?")
    if not isinstance(found, Tensor):
        raise Broken(f"{call} returned a {type(found).__name__} instead of a tensor")
    wanted = tuple(sizes.values())
    if tuple(found.shape) != wanted:
        letters = {size: letter for letter, size in sizes.items()}
        read = [letters.get(size, "?") for size in found.shape]
        is_known = len(letters) == len(sizes) and sorted(read) == sorted(sizes)
        order = f", that is ({', '.join(read)})," if is_known else ""
        names = f"({', '.join(name.rstrip('_') for name in sizes)}) = " if sizes else ""
        raise Broken(f"{call}: the shape is {tuple(found.shape)}{order} instead of {names}{wanted}")
    return found


def expect_pair(found: object, call: str, names: str) -> tuple[Any, Any]:
    """Returns `found` if it is a pair; `names` are those of its two parts, for the message."""
    if not isinstance(found, tuple | list) or len(found) != 2:
        kind = "nothing" if found is None else f"a {type(found).__name__}"
        raise Broken(f"{call} returned {kind} instead of two values: return {names}")
    return found[0], found[1]


def expect_number(found: object, call: str) -> float:
    """Returns `found` as a float if it is a number, or a tensor of one number."""
    if isinstance(found, Tensor) and found.numel() == 1:
        return found.item()
    if isinstance(found, bool) or not isinstance(found, int | float):
        kind = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise Broken(f"{call} returned {'nothing' if found is None else kind} instead of a number")
    return found


def is_close(found: float, wanted: float) -> bool:
    """Whether two numbers count as equal; nan equals nothing, infinity itself."""
    return found == wanted or abs(found - wanted) <= TOLERANCE * max(1.0, abs(wanted))


def difference(found: Tensor, wanted: Tensor) -> tuple[int, ...] | None:
    """Returns the first place at which two tensors of one shape differ, or None if they count as equal."""
    equal = torch.isclose(found.double(), wanted.double(), rtol=TOLERANCE, atol=TOLERANCE)
    return next((tuple(place) for place in (~equal).nonzero().tolist()), None)


def readable(numbers: object) -> str:
    """Returns a number or a small tensor as text, with four digits.

    >>> readable(torch.tensor([[0.25, 1 / 3], [1.0, 2.0]])), readable(2.0)
    ('[[0.25, 0.3333], [1, 2]]', '2')
    """
    if isinstance(numbers, Tensor):
        numbers = numbers.tolist()
    if isinstance(numbers, list | tuple):
        return f"[{', '.join(map(readable, numbers))}]"
    return str(numbers) if isinstance(numbers, bool | int) else f"{numbers:.4g}"


def random(*shape: int, seed: int = 0) -> Tensor:
    """Returns random numbers of a standard normal distribution, the same at each call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def splits(length: int) -> list[list[int]]:
    """Returns all ways to cut a text into chunks, as lists of their lengths, the fewest chunks first.

    >>> splits(3)
    [[3], [1, 2], [2, 1], [1, 1, 1]]
    """
    found = []
    for count in range(length):
        for cuts in itertools.combinations(range(1, length), count):
            found.append([end - start for start, end in itertools.pairwise([0, *cuts, length])])
    return found
