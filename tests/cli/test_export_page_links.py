"""The links of an exported page lead to the sources at their commit, or are replaced by the names of the files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from transformer.cli.export_page.links import lead_somewhere, source_address

KEPT = '<a href="#what">A</a> <a href="https://arxiv.org/abs/1">B</a>'
PAGE = f'{KEPT} <a href="src/a/bpe.py">bpe.py</a> <a href="b.md">it</a>'


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit."""
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "one")
    return tmp_path


def test_links_to_files_get_the_address_and_others_stay() -> None:
    there = lead_somewhere(PAGE, "https://github.com/o/n/blob/0")
    assert there == (
        f'{KEPT} <a href="https://github.com/o/n/blob/0/src/a/bpe.py">bpe.py</a> '
        '<a href="https://github.com/o/n/blob/0/b.md">it</a>'
    )
    assert lead_somewhere(PAGE, None) == f"{KEPT} <code>src/a/bpe.py</code> it (<code>b.md</code>)"


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("git@github.com:owner/name.git", "https://github.com/owner/name/blob/"),
        ("https://github.com/owner/name", "https://github.com/owner/name/blob/"),
        ("ssh://git@gitlab.com/owner/name.git", "https://gitlab.com/owner/name/-/blob/"),
        ("https://user:secret@github.com/owner/name", None),
        ("https://host.invalid/owner/name", None),
        ("/srv/name.git", None),
    ],
)
def test_the_address_is_that_of_a_commit_which_a_public_host_has(
    remote: str, address: str | None, checkout: Path
) -> None:
    git(checkout, "remote", "add", "origin", remote)
    assert source_address(checkout) is None  # the commit has not been pushed
    git(checkout, "update-ref", "refs/remotes/origin/main", "HEAD")
    commit = git(checkout, "rev-parse", "HEAD")
    assert source_address(checkout) == (address and f"{address}{commit}")


def test_without_git_there_is_no_address(tmp_path: Path) -> None:
    assert source_address(tmp_path) is None
