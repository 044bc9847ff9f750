"""Uploads an exported folder to the Hugging Face hub, by the hub's own library.

HF_TOKEN, or the token that `hf auth login` stored, and HF_ENDPOINT, proxies and offline mode are the library's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from transformer.data.hub.errors import HubError, endpoint, first_line, host


def upload(folder: Path, repo: str, is_public: bool, shows_progress: bool = False) -> str:
    """Adds the folder's files to the repository `repo` in one commit; returns the address of the repository.

    A repository that does not exist is made, private unless is_public; one that exists keeps its visibility. Raises
    HubError.
    """
    from huggingface_hub import HfApi

    with _explained(folder, repo), _progress(shows_progress):
        api = HfApi(endpoint=endpoint())
        address = api.create_repo(repo, private=not is_public, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Export of transformer")
    return str(address)


@contextlib.contextmanager
def _explained(folder: Path, repo: str) -> Iterator[None]:
    """Turns the errors of the hub library and its HTTP client into a HubError."""
    from huggingface_hub import errors

    try:
        yield
    except HubError:
        raise
    except Exception as error:  # also those of its HTTP client, which is httpx or httpx2
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error  # of one file
        status = cause.response.status_code if isinstance(cause, errors.HfHubHTTPError) else None
        if isinstance(cause, errors.OfflineModeIsEnabled):
            reason = "HF_HUB_OFFLINE is set: unset it to use the network"
        elif status in (401, 403):
            reason = f"{host()} refuses it ({status}): set HF_TOKEN to a token that may write to it"
        elif status is not None:
            reason = f"{host()} answered {status}"
        else:
            reason = first_line(cause) if isinstance(cause, Exception) else type(cause).__name__
        raise HubError(
            f"{repo} is not uploaded: {reason}. The export is in {folder}: `hf upload {repo} {folder}` tries again"
        ) from error


@contextlib.contextmanager
def _progress(shows: bool) -> Iterator[None]:
    """Turns the library's progress bars off, if they are on and not wanted."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if shows or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
