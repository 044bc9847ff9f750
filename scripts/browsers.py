"""Finds the installed browser with which scripts take pictures of the page and tests open it."""

from __future__ import annotations

import shutil
from pathlib import Path

NAMES = {
    "chromium": ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"],
    "firefox": ["firefox-esr", "firefox"],
}
PATHS = {
    "chromium": [
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "C:/Program Files/Google/Chrome/Application/chrome.exe",
    ],
    "firefox": [
        "/Applications/Firefox.app/Contents/MacOS/firefox",
        "C:/Program Files/Mozilla Firefox/firefox.exe",
    ],
}


def find_browser(engine: str = "chromium") -> str:
    """Returns the path of a Chromium (or Chrome) or a Firefox. Raises FileNotFoundError if there is none."""
    on_path = filter(None, map(shutil.which, NAMES[engine]))
    found = [*on_path, *(path for path in PATHS[engine] if Path(path).exists())]
    if not found:
        raise FileNotFoundError(f"{engine} is not on PATH: on Debian, run apt-get install {NAMES[engine][0]}")
    return found[0]
