"""Runs the checks in a process of their own: an endless loop or a crash in a reader's code costs one line.

The process writes what it finds to a file, a line of JSON each, so that what the reader's code prints stays apart. A
timer of Python's faulthandler ends it when one property takes too long, and says at which line; it needs no help from
the code that runs. Whatever ends the process, the exercises that are left are checked in a new one.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from transformer.exercises.catalogue import Exercise, exercise_called
from transformer.exercises.checking import Result, at_line, check
from transformer.exercises.property import Property

SECONDS = 10.0
"""Time for one property; the longest takes hundredths of a second."""
START_SECONDS = 300.0
"""Time for the process to start, which imports PyTorch."""


def check_files(folder: Path, exercises: Sequence[Exercise], seconds: float = SECONDS) -> list[Result]:
    """Returns the result of each exercise, in order."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as scratch:
        while len(results) < len(exercises):
            left = exercises[len(results) :]
            found = check_in_process(folder.resolve(), left, Path(scratch), seconds)
            results += found
    return results


def check_in_process(folder: Path, exercises: Sequence[Exercise], scratch: Path, seconds: float) -> list[Result]:
    """Returns the results of one process, at least one: if the process ended early, the last says how."""
    report, stuck = scratch / "report", scratch / "stuck"
    report.write_text("", encoding="utf-8")
    stuck.write_text("", encoding="utf-8")
    job = json.dumps([str(folder), [one.name for one in exercises], str(report), str(stuck), seconds])
    line = [sys.executable, "-P", "-u", "-c", f"from transformer.exercises.isolation import run_job; run_job({job!r})"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, env=environment, start_new_session=True) as process:
        try:
            status: int | None = process.wait(START_SECONDS + seconds * sum(len(one.properties) for one in exercises))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            process.kill()
    whole_lines, _, _ = report.read_text(encoding="utf-8").rpartition("\n")
    lines = [json.loads(line) for line in whole_lines.splitlines()]
    results = [Result(**{**line, "functions": tuple(line["functions"])}) for line in lines if "status" in line]
    if len(results) < len(exercises):
        begun = lines[-1] if lines and "begun" in lines[-1] else {"begun": "", "hint": ""}
        one = exercises[len(results)]
        message = how_it_ended(status, stuck.read_text(encoding="utf-8"), folder / one.file_name, seconds)
        results.append(Result(one.name, "failed", 0, begun["begun"], message, begun["hint"]))
    return results


def how_it_ended(status: int | None, stuck: str, file: Path, seconds: float) -> str:
    """Returns what happened to a process that did not finish; `stuck` is what faulthandler wrote."""
    places = [int(number) for name, number in re.findall(r'File "(.*)", line (\d+)', stuck) if Path(name) == file]
    where = f"\n{at_line(file, places[0])}" if places else ""
    if "Timeout" in stuck or status is None:
        return f"it was still running after {seconds:g} seconds{where}"
    kind = f"by signal {-status}" if status < 0 else f"with status {status}"
    return f"the code ended the whole process, {kind}{where}"


def run_job(job: str) -> None:
    """What the process runs: checks the exercises, and writes each result as soon as it is there."""
    folder, names, report, stuck, seconds = json.loads(job)
    torch.set_num_threads(1)
    with Path(report).open("w", encoding="utf-8") as out, Path(stuck).open("w", encoding="utf-8") as trace:
        faulthandler.enable(trace, all_threads=False)

        def write(line: dict[str, object]) -> None:
            out.write(f"{json.dumps(line)}\n")
            out.flush()

        def begin(holds: Property) -> None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=trace)
            write({"begun": holds.statement, "hint": holds.hint})

        for name in names:
            one = exercise_called(name)
            faulthandler.dump_traceback_later(seconds, exit=True, file=trace)  # reading the file runs its code too
            result = check(one, Path(folder) / one.file_name, begin)
            faulthandler.cancel_dump_traceback_later()
            write(asdict(result))
    os._exit(0)  # also if the reader's code has started a thread that never ends
