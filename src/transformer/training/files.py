"""Writing a file or folder that a user keeps: at every moment its path holds all of the old one or all of the new one.

The new file is written under a temporary name, flushed to the disk and renamed. A full disk, an error or a kill leaves
the old file as it was. Checkpoints, metrics, pictures, pages and results are all written here.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
"""The error numbers of a full disk, a file that is too large, and an exhausted quota."""


@contextlib.contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Yields a file that takes the place of `path` at the end of the block, if the block raises nothing.

    With `previous`, the old file is kept at that path. A link is followed, and a device or a pipe is written directly.
    Raises OSError.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is write-protected", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if not _is_being_written(left):  # its process was killed
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is None:  # NumPy's, of a full disk: a sentence alone
            raise OSError(errno.EIO, f"not all of it could be written ({error})", str(path)) from error
        if isinstance(error, OSError) and error.filename is None:  # a failed write does not name its file
            error.filename = str(path)
        raise
    flush_folder(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes `path` at the end of the block, if the block raises nothing.

    Raises ValueError if there is anything at `path` but an empty folder, and OSError.
    """
    path = Path(os.path.realpath(path))
    check_new_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if not _is_being_written(left):  # its process was killed
            shutil.rmtree(left, ignore_errors=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush_folder(path.parent)


def check_new_folder(path: Path) -> None:
    """Raises ValueError if there is anything at `path` but an empty folder."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        what = "is not empty" if path.is_dir() else "is a file"
        raise ValueError(f"{path} exists and {what}: give the name of a new folder")


def write_text(path: Path, text: str) -> None:
    """Writes a text in UTF-8, as replacing() does."""
    with replacing(path) as file:
        file.write(text.encode())


def flush_folder(folder: Path) -> None:
    """Makes renamed files in a folder survive a power cut, if the system supports that."""
    with contextlib.suppress(OSError, AttributeError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _is_being_written(temporary: Path) -> bool:
    """Whether the process in the name of a temporary file still runs; on Windows, whether the file is recent."""
    if os.name == "nt":
        return time.time() - temporary.stat().st_mtime < 3600
    return is_running(temporary.name.split(".")[-2])


def is_running(pid: str | int) -> bool:
    """Whether there is a process with this id; on Windows always True."""
    if os.name == "nt":  # where os.kill ends processes
        return True
    try:
        os.kill(int(pid), 0)  # signal 0 only asks whether the process exists
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True
