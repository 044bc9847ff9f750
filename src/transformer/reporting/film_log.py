"""The frames of a run's film, film.frames: all attention weights on one text, at one step per line.

They are not in metrics.jsonl because they are long: a frame of 2 layers with 4 heads takes 6 kB. The name does not end
in .jsonl, which would make the file a part of the text if the run is in the folder of its text (text/local_files.py).
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path

from transformer.training.events import AttentionFrame, Event, RunStarted
from transformer.training.files import write_text

FILM_FILE = "film.frames"


class FilmLog:
    """A callback that appends every AttentionFrame to `directory`/film.frames.

    A run that starts at step 0 begins a new file; a resumed run keeps the frames up to its step.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILM_FILE

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted) and self.path.exists():
            kept = [frame for frame in read_film(self.path) if event.step > 0 and frame.step <= event.step]
            write_text(self.path, "".join(map(to_line, kept)))
        if isinstance(event, AttentionFrame):
            with self.path.open("a", encoding="utf-8") as file:
                file.write(to_line(event))


def to_line(frame: AttentionFrame) -> str:
    return json.dumps(asdict(frame)) + "\n"


def read_film(path: Path) -> list[AttentionFrame]:
    """Returns the frames by step; of two at one step the later. A line that a crash damaged is left out."""
    frames = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, TypeError):
            frame = AttentionFrame(**json.loads(line))
            frames[frame.step] = frame
    return [frames[step] for step in sorted(frames)]
