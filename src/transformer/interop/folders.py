"""Files of a folder that somebody else filled, for example a cloned repository."""

from __future__ import annotations

from pathlib import Path

from transformer.interop.errors import SourceError
from transformer.training.checkpoint_contents import brief


def file_in(folder: Path, name: str) -> Path:
    """Returns the path of a file of the folder. Raises SourceError if it is missing, special, or somewhere else.

    `name` may come from a file of the folder: it must be the plain name of a regular file, and a symbolic link must
    not lead out of the folder. In the hub's own cache (models--OWNER--NAME/snapshots/COMMIT), links lead to blobs of
    the repository, and some of these to blobs that all repositories of the cache share.
    """
    if name in {"", ".", ".."} or any(letter in name for letter in "/\\:") or not name.isprintable():
        raise SourceError(f"{folder}: {brief(repr(name))} is not the name of a file in this folder")
    snapshots = folder.resolve().parent
    repository = snapshots.parent
    is_in_hub_cache = snapshots.name == "snapshots" and repository.name.startswith("models--")
    roots = [repository, repository.parent / "blobs"] if is_in_hub_cache else [folder]
    path = folder / name
    try:
        target = path.resolve(strict=True)
        is_inside = any(target.is_relative_to(root.resolve()) for root in roots)
        is_file = target.is_file()
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself, before Python 3.13
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"{path}: {reason}") from error
    if not is_inside:
        raise SourceError(f"{path}: is a link to a file outside {roots[0]}")
    if not is_file:
        raise SourceError(f"{path}: is not a regular file")
    return path


def refuse_pointer(path: Path) -> None:
    """Raises SourceError for the few lines that stand for a large file in a repository cloned without Git LFS."""
    if path.stat().st_size < 1024 and path.read_bytes().startswith(b"version https://git-lfs.github.com/spec/"):
        raise SourceError(f"{path} is a pointer of Git LFS, not the file: type `git lfs pull` in its folder")
