"""Finds the Chromium or Chrome with which scripts take pictures of the page and tests open it."""

from __future__ import annotations

import shutil
from pathlib import Path

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]
PATHS = [
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
]


def find_browser() -> str:
    """Returns the path of the browser. Raises FileNotFoundError if there is none."""
    found = [*filter(None, map(shutil.which, NAMES)), *(path for path in PATHS if Path(path).exists())]
    if not found:
        raise FileNotFoundError("Chromium or Chrome is not on PATH: on Debian, run apt-get install chromium")
    return found[0]
