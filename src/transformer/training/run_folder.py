"""The folder of a run: one run at a time writes into it, and the files of an earlier run make way for a new one's.

The lock is held from the start of a run to its end. The operating system releases it if the process dies, so a lock is
never left behind; the lock file itself stays.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from filelock import BaseFileLock, FileLock, Timeout

from transformer.distributed.processes import Dist
from transformer.training.checkpoint import epochs, states
from transformer.training.files import is_running

LOCK, HOLDER = ".run.lock", ".run.holder"
OWN_FILES = re.compile(
    r"training_state_.+|model_epoch_\d+_.+\.pt|metrics\.jsonl|film\.frames|"
    r"(loss_curve|inside)\.(png|svg)|tensorboard|(wandb|trackio)_id\.txt"
)
"""The names of the files and folders that a run writes; all other files belong to the user."""


class RunFolderError(ValueError):
    """A run cannot use its folder: another run does, or an earlier run's files cannot be moved."""


class RunLock:
    """Keeps other runs out of a run's folder, from take() to the end of the `with` block.

    Rank 0 holds the lock for all processes of a run. `warn` receives one line if the file system has no locks.
    """

    def __init__(self, dist: Dist, warn: Callable[[str], object]) -> None:
        self.dist, self.warn = dist, warn
        self.stack = contextlib.ExitStack()
        self.is_taken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def take(self, directory: Path, create: bool = True) -> None:
        """Locks the folder, unless that is done; without `create`, only if it exists. All processes call it.

        Raises RunFolderError on all of them if the folder is in use or cannot be made.
        """
        problem = None
        if self.dist.is_main and not self.is_taken:
            problem = unusable(directory)  # before the text is read, which may take long
            if problem is None and (create or directory.is_dir()):
                problem = self._lock(directory)
        (problem,) = self.dist.from_main((problem,))
        if problem is not None:
            raise RunFolderError(problem)

    def _lock(self, directory: Path) -> str | None:
        """Locks the folder; returns why it cannot be used, or None."""
        folder = Path(os.path.realpath(directory))  # the target of a link, which may not exist yet
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return f"the folder {directory} cannot be made: {error.strerror or error}; give another --checkpoint-dir"
        lock = FileLock(folder / LOCK, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return (
                f"{directory} is in use by {_holder(folder)}: wait for its end, stop it, or give another "
                "--checkpoint-dir"
            )
        except (OSError, NotImplementedError) as error:  # read-only, or a network folder without locks
            reason = getattr(error, "strerror", None) or error
            self.warn(f"{directory} cannot be locked ({reason}); make sure that no other run uses it")
        else:
            self.stack.callback(_release, lock, folder)
            about = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.strftime("%Y-%m-%d %H:%M:%S")}
            with contextlib.suppress(OSError):  # a full disk
                (folder / HOLDER).write_text(json.dumps(about), encoding="utf-8")
        self.is_taken = True
        return None


def unusable(directory: Path) -> str | None:
    """Returns why a run cannot write into a folder, which need not exist yet, or None. Makes nothing."""
    try:
        nearest = Path(os.path.realpath(directory))
        while not nearest.exists():
            nearest = nearest.parent
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL
        reason = getattr(error, "strerror", None) or str(error)
    else:
        if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
            return None
        reason = f"{nearest} is write-protected" if nearest.is_dir() else f"{nearest} is a file"
    return f"the folder {str(directory)[:100]} cannot be made: {reason}; give another --checkpoint-dir"


def _release(lock: BaseFileLock, folder: Path) -> None:
    with contextlib.suppress(OSError):
        (folder / HOLDER).unlink(missing_ok=True)
    lock.release()


def _holder(folder: Path) -> str:
    """Returns a description of the process that holds the lock of a folder."""
    for _ in range(10):  # it may have taken the lock just now, after another process that died
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            about = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
            if about["host"] != socket.gethostname() or is_running(int(about["pid"])):
                return f"process {int(about['pid'])} on {about['host']}, started {about['started']}"
        time.sleep(0.1)
    return "another process"


def set_aside(directory: Path) -> Path | None:
    """Moves the files of an earlier run to `directory`/earlier_N, if there is one; returns that folder.

    All other files stay. Raises RunFolderError if a file cannot be moved; then none is.
    """
    if not epochs(directory) and not states(directory):
        return None
    own = [path for path in directory.iterdir() if OWN_FILES.fullmatch(path.name)]
    own.sort(key=lambda path: path.name.startswith("training_state"))  # last: if the process is killed before, --resume
    aside = next(path for number in itertools.count(1) if not (path := directory / f"earlier_{number}").exists())
    moved: list[Path] = []
    try:
        aside.mkdir()
        for path in own:
            path.rename(aside / path.name)
            moved.append(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            for path in moved:
                (aside / path.name).rename(path)
            aside.rmdir()
        raise RunFolderError(
            f"{directory} holds an earlier run, which cannot be moved to {aside} ({error.strerror or error}): give "
            "another --checkpoint-dir, or --resume to continue that run"
        ) from error
    return aside
