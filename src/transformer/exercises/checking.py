"""Checking one file of a reader: load it, try its properties in order, and describe the first thing that is wrong."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import Literal

from torch import Tensor

from transformer.exercises.catalogue import Exercise
from transformer.exercises.property import Broken, Property

Status = Literal["passed", "broken", "failed", "unfinished", "missing"]
MOST_SHAPES = 8
"""Tensors whose shapes a message names."""


@dataclass(frozen=True)
class Result:
    """What the check of one exercise found.

    passed: all properties hold. broken: one does not. failed: the code raised an error, or did not end. unfinished: a
    function still raises NotImplementedError. missing: there is no file.
    """

    name: str
    status: Status
    held: int = 0
    """Properties that held before."""
    statement: str = ""
    """The property that is broken, or was being checked."""
    message: str = ""
    """The smallest example, or the error with the reader's line."""
    hint: str = ""
    functions: tuple[str, ...] = ()
    """The functions that passed, if one is enough."""


def check(exercise: Exercise, file: Path, begin: Callable[[Property], object] = lambda holds: None) -> Result:
    """Returns the result for the reader's file. `begin` is called before each property."""
    if not file.is_file():
        return Result(exercise.name, "missing")
    try:
        solution = load(file)
    except Exception as error:
        return Result(exercise.name, "failed", message=described(error, file))
    missing = [name for name in exercise.functions if not hasattr(solution, name)]
    if missing:
        return Result(exercise.name, "failed", message=f"the file does not define {missing[0]} any more")
    held, unfinished = 0, list[str]()
    for holds in exercise.properties:
        if holds.about in unfinished:
            continue
        begin(holds)
        try:
            holds(solution)
            held += 1
        except Broken as broken:
            return Result(exercise.name, "broken", held, holds.statement, str(broken), holds.hint)
        except NotImplementedError as error:
            if not raised_in(error, file):
                return Result(exercise.name, "failed", held, holds.statement, described(error, file), holds.hint)
            unfinished.append(holds.about)
            if not exercise.one_is_enough:
                break
        except Exception as error:
            return Result(exercise.name, "failed", held, holds.statement, described(error, file), holds.hint)
    done = tuple(name for name in exercise.functions if name not in unfinished)
    if unfinished and not (exercise.one_is_enough and done):
        first = next(holds for holds in exercise.properties if holds.about == unfinished[0])
        return Result(exercise.name, "unfinished", held, message=f"{unfinished[0]} is not written yet", hint=first.hint)
    return Result(exercise.name, "passed", held, functions=done)


def load(file: Path) -> ModuleType:
    """Runs the reader's file and returns its module. Nothing is read from or written to a cache of compiled code."""
    module = ModuleType(f"exercise_{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses look for their module there
    exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)
    return module


def frames_in(error: BaseException, file: Path) -> Iterator[tuple[FrameType, int]]:
    """Yields the frames of the error's traceback that are in the file, outermost first, with their lines."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == file:
            yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


def raised_in(error: BaseException, file: Path) -> bool:
    """Whether the innermost frame of the error's traceback is in the file."""
    return Path(traceback.extract_tb(error.__traceback__)[-1].filename) == file


def described(error: BaseException, file: Path) -> str:
    """Returns the reader's line at which the error arose, the error, and the shapes of the tensors there."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f"line {error.lineno}: {(error.text or '').strip()}\n{type(error).__name__}: {error.msg}"
    said = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
    frames = list(frames_in(error, file))
    if not frames:
        return f"{said}\n(raised while the check called the function: are its arguments still those of the stub?)"
    frame, line = frames[-1]
    shapes = [f"{name} {tuple(value.shape)}" for name, value in frame.f_locals.items() if isinstance(value, Tensor)][
        :MOST_SHAPES
    ]
    return f"{at_line(file, line)}\n{said}" + f"\nshapes there: {', '.join(shapes)}" * bool(shapes)


def at_line(file: Path, line: int) -> str:
    """Returns the line of the file with its number."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return f"line {line}: {lines[line - 1].strip() if line <= len(lines) else ''}"
