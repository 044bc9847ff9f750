"""The links of an exported page lead to the sources in the repository, or name the files where no address is known."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

HOSTS = {"github.com": "blob", "gitlab.com": "-/blob", "codeberg.org": "src/commit"}
"""Public hosts, and the path between a repository's address and a commit."""
LINK = re.compile(r'<a href="(?![#"]|[a-z]+:)([^"]+)">(.*?)</a>', re.DOTALL)
"""A link to a file of the repository: (path, text)."""


def lead_somewhere(page: str, address: str | None) -> str:
    """Returns the page with links to `address`/path in place of paths; without an address, with the paths as text."""

    def replaced(link: re.Match[str]) -> str:
        path, words = link[1], link[2]
        if address:
            return f'<a href="{address}/{path}">{words}</a>'
        return f"<code>{path}</code>" if path.endswith(words) else f"{words} (<code>{path}</code>)"

    return LINK.sub(replaced, page)


def source_address(root: Path) -> str | None:
    """Returns the address of the files of a checkout at its commit, or None.

    A commit that no remote branch contains has no address: it may not have been pushed.
    """
    if not (root / ".git").exists():  # an installed package may be inside another repository
        return None
    commit, remote = _git(root, "rev-parse", "HEAD"), _git(root, "remote", "get-url", "origin")
    if not _git(root, "branch", "--remotes", "--contains", "HEAD"):
        return None
    found = re.fullmatch(r"(?:https://|ssh://git@|git@)([\w.-]+)[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?", remote)
    if not found or found[1] not in HOSTS:
        return None
    return f"https://{found[1]}/{found[2]}/{HOSTS[found[1]]}/{commit}"


def _git(root: Path, *arguments: str) -> str:
    """What git prints, or nothing if it is not installed or fails."""
    try:
        found = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
