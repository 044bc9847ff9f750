"""The exercises command; commands/exercises.py documents it, and docs/exercises.md is the guide."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

import transformer
from transformer.cli.console import console
from transformer.cli.exercises.options import FOLDER, ExercisesOptions
from transformer.cli.formatting import counted
from transformer.cli.options import command_line
from transformer.exercises.catalogue import EXERCISES, Exercise, exercise_called
from transformer.exercises.checking import Result
from transformer.exercises.folder import State, make, remember, state_of
from transformer.exercises.isolation import check_files

STATES: dict[State, str] = {"passed": "done", "changed": "changed since it passed", "begun": "begun", "new": ""}


def main(options: ExercisesOptions) -> None:
    out = console()
    if not options.action:
        show_progress(options.folder, out)
        return
    if not options.folder.is_dir():
        raise ValueError(f"there is no folder {options.folder}: {again(options.folder)} makes it")
    if options.action[0] == "check":
        check(options, out)
    else:
        hint(options, out)


def again(folder: Path, *words: str) -> str:
    """Returns the line that runs this command with these words."""
    place = [] if folder == FOLDER else ["--folder", str(folder)]
    return shlex.join([*command_line().split(), "exercises", *words, *place])


def show_progress(folder: Path, out: Console) -> None:
    """Makes the files that are missing, and prints what is done and what is next."""
    made = make(folder)
    if made:
        out.print(f"{folder}: {counted(len(made), 'file')} made; what is there already stays as it is")
    states = {one.name: state_of(one, folder) for one in EXERCISES}
    left = [one for one in EXERCISES if states[one.name] != "passed"]
    table = Table(box=None, pad_edge=False)
    for heading in ("file", "exercise", "lesson", "state"):
        table.add_column(heading, overflow="fold")
    for one in EXERCISES:
        state = STATES[states[one.name]] or ("next" if one in left[:1] else "")
        style = "green" if states[one.name] == "passed" else "bold" if one in left[:1] else ""
        table.add_row(one.file_name, one.title, one.lesson, state, style=style)
    out.print(table)
    done = len(EXERCISES) - len(left)
    out.print(f"\n{done} of {len(EXERCISES)} done")
    if left:
        out.print(f"next:   edit {folder / left[0].file_name}, after reading {lesson_path(left[0])}")
        out.print(f"check:  {again(folder, 'check', left[0].name)}")
    if done:
        place = "" if folder == FOLDER else f" --exercises-folder {shlex.quote(str(folder))}"
        out.print(
            f"train with what passes:  {command_line()} train --preset demo --position rotary --with-exercises{place}"
        )


def lesson_path(exercise: Exercise) -> Path:
    """Returns the path of the file to read, as short as it can be written."""
    path = Path(transformer.__file__).parent / exercise.lesson
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def check(options: ExercisesOptions, out: Console) -> None:
    """Checks the exercises and prints the first problem of each that is named, or of the first that has one."""
    chosen = [exercise_called(name) for name in options.names] or list(EXERCISES)
    results = check_files(options.folder, chosen, options.seconds)
    has_shown = False
    for result in results:
        shows = bool(options.names) or not has_shown
        show_result(result, options, shows, out)
        has_shown = has_shown or result.status in ("broken", "failed")
    remember(options.folder, results)
    done = [result for result in results if result.status == "passed"]
    if not options.names:
        out.print(f"\n{len(done)} of {len(results)} pass")
    if len(done) < len(results):
        raise SystemExit(1)


def show_result(result: Result, options: ExercisesOptions, in_full: bool, out: Console) -> None:
    """Prints one line about an exercise, and below it the first problem if `in_full`."""
    one = exercise_called(result.name)
    said = {
        "passed": f"passes, all {result.held} properties hold",
        "missing": f"there is no file {options.folder / one.file_name}: {again(options.folder)} makes it",
        "unfinished": result.message,
        "broken": f"{result.held} of {len(one.properties)} properties hold" + "; this one does not:" * in_full,
        "failed": "stops with an error" + ":" * in_full,
    }[result.status]
    style = {"passed": "green", "broken": "red", "failed": "red"}.get(result.status, "dim")
    out.print(Text.assemble((f"{one.name:<13}", "bold"), (said, style)))
    if not in_full or result.status not in ("broken", "failed"):
        return
    if result.status == "broken":
        out.print(f"  {result.statement}")
        out.print(f"  For example: {result.message}")
    else:
        for line in result.message.splitlines():
            out.print(f"  {line}")
        if result.statement:
            out.print(f"  in the check of: {result.statement}")
    if result.hint:
        out.print(f"  a hint: {again(options.folder, 'hint', one.name)}", style="dim")


def hint(options: ExercisesOptions, out: Console) -> None:
    """Prints a hint about the first problem of the exercise, by default of the first that is not done."""
    open_ones = [one for one in EXERCISES if state_of(one, options.folder) != "passed"]
    one = exercise_called(options.names[0]) if options.names else (open_ones or list(EXERCISES))[0]
    (result,) = check_files(options.folder, [one], options.seconds)
    if result.status in ("passed", "missing"):
        show_result(result, options, True, out)
    elif result.status == "broken":
        out.print(f"{one.name}: not true yet: {result.statement}")
    else:
        out.print(f"{one.name}: {result.message}")
    if result.hint:
        out.print(f"hint: {result.hint}")
    elif result.status == "failed":
        out.print(f"hint: get the file to run first: `python {options.folder / one.file_name}` shows the same error")
