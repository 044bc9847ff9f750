"""The reader's folder: the stubs are copied there once, and a small file remembers what has passed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from transformer.exercises.catalogue import EXERCISES, Exercise
from transformer.exercises.checking import Result

PROGRESS_FILE = "progress.json"
State = Literal["passed", "changed", "begun", "new"]


def make(folder: Path) -> list[Path]:
    """Copies the stubs whose files are missing; returns the new files. A file that is there is never changed."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for one in EXERCISES:
        file = folder / one.file_name
        try:
            with file.open("x", encoding="utf-8") as out:
                out.write(one.stub.read_text(encoding="utf-8"))
        except FileExistsError:
            continue
        made.append(file)
    return made


def digest(file: Path) -> str:
    """A hash of the file's text, the same with the line ends of every system."""
    return hashlib.sha256(b"\n".join(file.read_bytes().splitlines())).hexdigest()


def passed(folder: Path) -> dict[str, str]:
    """Returns the exercises that have passed, and the hash of each file then. An unreadable file counts as empty."""
    try:
        contents = json.loads((folder / PROGRESS_FILE).read_text(encoding="utf-8"))
        return {str(name): str(value) for name, value in contents["passed"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def remember(folder: Path, results: Sequence[Result]) -> None:
    """Writes which exercises pass now; those that were not checked keep their state."""
    known = passed(folder)
    for result in results:
        known.pop(result.name, None)
        if result.status == "passed":
            (one,) = (one for one in EXERCISES if one.name == result.name)
            known[one.name] = digest(folder / one.file_name)
    text = json.dumps({"passed": known}, indent=1)
    (folder / PROGRESS_FILE).write_text(f"{text}\n", encoding="utf-8")


def state_of(exercise: Exercise, folder: Path) -> State:
    """Returns whether the file has passed as it is, has changed since, has been begun, or is as it was made."""
    file, known = folder / exercise.file_name, passed(folder)
    if not file.is_file():
        return "new"
    if exercise.name in known:
        return "passed" if known[exercise.name] == digest(file) else "changed"
    return "new" if digest(file) == digest(exercise.stub) else "begun"
