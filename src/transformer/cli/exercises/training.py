"""A training run with the reader's parts: which are used, and errors that arise in them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from transformer.cli.console import console, rank_prefix
from transformer.cli.exercises.command import again
from transformer.cli.exercises.options import FOLDER
from transformer.exercises.catalogue import EXERCISES, Exercise, exercise_called
from transformer.exercises.checking import described, frames_in, load
from transformer.exercises.folder import remember
from transformer.exercises.isolation import check_files
from transformer.exercises.parts import USES, Chosen, use_parts
from transformer.trainer import Trainer


def prepared_with(folder: Path) -> Callable[[Trainer], None]:
    """Returns a function that puts the finished exercises of the folder into a run, and prints which.

    Raises ValueError if none passes.
    """
    if rank_prefix():
        raise ValueError("--with-exercises is for a run in one process: leave out torchrun")
    console().print(f"checking the exercises in {folder}")
    files = {one.name: (folder / one.file_name).resolve() for one in passing(folder)}
    if not any(name in USES for name in files):
        raise ValueError(
            f"--with-exercises: none of the exercises that pass ({', '.join(files)}) is a part of training"
        )

    def prepare(trainer: Trainer) -> None:
        chosen = use_parts(trainer, {name: load(file) for name, file in files.items()})
        if not chosen.used:
            raise ValueError(f"--with-exercises: none of the exercises that pass is used here: {unused_text(chosen)}")
        console().print(f"your parts in this run: {', '.join(chosen.used)}", style="bold")
        if chosen.unused:
            console().print(f"not used: {unused_text(chosen)}", style="dim")

    return prepare


def passing(folder: Path, seconds: float = 10.0) -> Sequence[Exercise]:
    """Returns the exercises in the folder that pass a check now. Raises ValueError if there are none."""
    if not folder.is_dir():
        raise ValueError(f"--with-exercises: there is no folder {folder}: {again(folder)} makes it")
    results = check_files(folder, EXERCISES, seconds)
    remember(folder, results)
    found = [exercise_called(result.name) for result in results if result.status == "passed"]
    if not found:
        raise ValueError(f"--with-exercises: no exercise in {folder} passes; {again(folder, 'check')} says why")
    return found


def unused_text(chosen: Chosen) -> str:
    """Returns the exercises that are not used, those with the same reason together."""
    reasons = dict.fromkeys(chosen.unused.values())
    names = {why: ", ".join(name for name, reason in chosen.unused.items() if reason == why) for why in reasons}
    return "; ".join(f"{several} ({why})" for why, several in names.items())


@contextlib.contextmanager
def own_errors(folder: Path) -> Iterator[None]:
    """A context for the run: an error in one of the reader's files becomes a ValueError with its line."""
    try:
        yield
    except Exception as error:
        for file in sorted(folder.resolve().glob("*.py")):
            if next(frames_in(error, file), None) is not None:
                what = described(error, file).replace("\n", "; ")
                raise ValueError(f"{folder / file.name}, {what}") from error
        raise


def resume_words(folder: Path) -> str:
    """Returns the flags with which such a run continues."""
    place = "" if folder == FOLDER else f" --exercises-folder {folder}"
    return f"--with-exercises{place}"
