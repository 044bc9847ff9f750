"""The meaning of the hub's answers: a temporary failure, an error for the user, or a file that was replaced.

The hub library's HTTP client is httpx or httpx2, depending on its version. Neither is named here: the base classes of
HfHubHTTPError cover both.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

LARGEST_FILE = 2**50
"""Bytes; a larger size is an odd answer, which would be divided into shards without end."""
PERMANENT = {"InvalidURL", "LocalProtocolError", "TooManyRedirects", "UnsupportedProtocol"}
"""Errors of the HTTP client for which a retry is useless."""
OF_THIS_MACHINE = (FileNotFoundError, FileExistsError, NotADirectoryError, ImportError, UnicodeEncodeError)
"""Settings of this machine that no retry repairs: SSL_CERT_FILE without a file, HF_HOME in a file, a proxy whose
protocol needs another package, a token with a letter that a header cannot carry."""


class HubError(ValueError):
    """One line: what was requested, what failed, and the next step."""


class Unreachable(HubError):  # noqa: N818
    """The network failed for `patience` seconds, or HF_HUB_OFFLINE is set. `reason` says which, in a few words."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Changed(HubError):  # noqa: N818
    """The file on the hub is not the one that was listed."""


class Closed(Exception):  # noqa: N818
    """The Hub was closed, possibly by another thread."""


class Fault(Exception):  # noqa: N818
    """A temporary failure. `wait`: the seconds that the hub asks the client to wait."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class HubFile:
    """A file of one commit. Raises ValueError for values of other types, as another server may send them."""

    path: str
    size: int
    """Bytes."""
    oid: str
    """Identity of the contents: the LFS sha256 if there is one, else the git blob id."""

    def __post_init__(self) -> None:
        kinds = [type(value) for value in (self.path, self.size, self.oid)]
        if kinds != [str, int, str] or not 0 <= self.size < LARGEST_FILE:
            raise ValueError(f"not a file with its size and identity: {self}")


@contextmanager
def explained(what: str, repo: str, kind: str = "dataset") -> Iterator[None]:
    """Turns the errors of the hub library and its HTTP client into a Fault, which is retried, or a HubError.

    `kind` is the hub's name of such a repository: dataset or model.
    """
    from huggingface_hub import errors

    try:
        yield
    except (HubError, Fault, Closed):
        raise
    except errors.OfflineModeIsEnabled as error:
        reason = "HF_HUB_OFFLINE is set"
        raise Unreachable(f"cannot read {what} from {host()}: {reason}; unset it to use the network", reason) from error
    except errors.HfHubHTTPError as error:
        raise _refusal(error, what, f"{kind} {repo}") from error
    except Exception as error:
        line, kind = first_line(error), type(error).__name__
        if isinstance(error, errors.HFValidationError) or kind in PERMANENT:
            message = f"cannot read {what} from {host()}: {line}; check the name, HF_ENDPOINT and HF_TOKEN"
            raise HubError(message) from error
        if isinstance(error, OF_THIS_MACHINE):
            variables = "HF_HOME, HF_TOKEN, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE"
            raise HubError(f"cannot read {what} from {host()}: {line}; check {variables}") from error
        client_closed = isinstance(error, RuntimeError) and "closed" in line  # by the library, in another thread
        if client_closed or isinstance(error, errors.HfHubHTTPError.__bases__):
            raise Fault(f"the connection failed ({line})") from error
        if isinstance(error, (LookupError, TypeError, ValueError, AttributeError, RecursionError)):  # not its JSON
            raise Fault("something other than the hub answered") from error
        raise


def first_line(error: Exception) -> str:
    """Returns the first line of a message, for one of ours; its type instead if it could repeat a password."""
    line = next(iter(str(error).strip().splitlines()), "")[:100]
    return type(error).__name__ if not line or "@" in line + endpoint() else line


def _refusal(error: Any, what: str, repo: str) -> Exception:
    """Returns the error for an answer of 400 and above; `repo` is named with its kind, as in "dataset a/b"."""
    from huggingface_hub import errors

    status, site = error.response.status_code, host()
    if status in (408, 429) or status >= 500:
        return Fault(f"the hub answered {status}", wait_asked(error.response.headers))
    if isinstance(error, errors.GatedRepoError):
        return HubError(f"{repo} is gated: accept its terms on {site}, then set HF_TOKEN to a token of yours")
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(f"there is no {repo} on {site}, or it is private: check the name, or set HF_TOKEN")
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(f"{site} has no such revision: {what}; check the branch, tag or commit")
    if status in (401, 403):
        return HubError(f"{site} refuses {what} ({status}): set HF_TOKEN to a token that may read it")
    if status == 404:
        return HubError(f"{site} does not have {what}: {repo} may have been renamed or rewritten")
    return HubError(f"{site} refuses {what} ({status}): check HF_ENDPOINT and proxies")


def wait_asked(headers: Mapping[str, str]) -> float:
    """Returns the seconds in Retry-After (a number or a date) or in the hub's ratelimit header, or 0."""
    after = headers.get("Retry-After", "").strip()
    if after.isdigit():
        return float(after)
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    limit = re.search(r"\br=0;\s*t=(\d+)", headers.get("ratelimit", ""))
    return float(limit[1]) if limit else 0.0


def check_identity(response: Any, file: HubFile) -> None:
    """Raises Changed if the answer, or a redirect before it, describes other contents than the file's."""
    answers = [*response.history, response]
    oids = [_oid(answer.headers["X-Linked-Etag"]) for answer in answers if "X-Linked-Etag" in answer.headers]
    if not oids and response.is_success and urlsplit(str(response.url)).netloc.rpartition("@")[2] == host():
        oids = [oid for oid in [_oid(response.headers.get("ETag", ""))] if len(oid) == len(file.oid)]
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    other_size = response.status_code == 416 or (total.isdigit() and int(total) != file.size)
    if other_size or any(oid != file.oid for oid in oids):
        raise Changed(
            f"{file.path} changed on the hub since it was listed: start a new run, or choose a commit that still has it"
        )


def _oid(tag: str) -> str:
    return tag.strip().removeprefix("W/").strip('"')


def endpoint() -> str:
    """Returns the address of the hub: HF_ENDPOINT, or the library's default. Raises HubError for anything else."""
    from huggingface_hub import constants

    with suppress(ValueError):
        parts = urlsplit(constants.ENDPOINT)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:  # parts.port may be a ValueError
            return constants.ENDPOINT
    raise HubError("HF_ENDPOINT is not an address such as https://huggingface.co: correct it, or unset it")


def host() -> str:
    """Returns the host name of the hub, for messages: the endpoint without a user name and password."""
    return re.sub(r"^\w+://", "", endpoint()).rpartition("@")[2].partition("/")[0]
