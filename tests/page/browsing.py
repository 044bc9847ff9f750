"""A Chromium or Chrome that the machine has, and values to and from the pages that it shows."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]
PLACES = [
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
]

TEXT = "ROMEO:\nBut, soft! what light through yonder window"
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => { dispatchEvent(new Event('beforeprint')); done(); }))"
"""Waits for the next frame, then draws what is out of view as well."""

LOGITS = """([exported, tokens]) => {
  const model = GPT.load(exported || GPT.exported);
  const trace = model.run(tokens);
  return tokens.map((_, t) => Array.from(trace.logits(t)));
}"""
"""The logits (T, V) of a model, or for null of the page's own."""


def find_browser() -> str:
    """Where the browser is. Without one the tests are skipped, and fail where CI is set."""
    found = [*filter(None, map(shutil.which, NAMES)), *(place for place in PLACES if Path(place).exists())]
    if found:
        return found[0]
    reason = "the page's tests need Chromium or Chrome on PATH: on Debian, apt-get install chromium"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def compute(page: Page, function: str, argument: Any = None) -> Any:
    """What a JavaScript function returns for a value; an error's message for an error that it raises.

    Both go through JSON, which takes a tenth of the time of Playwright's own way where there are many numbers.
    """
    code = f"""(argument) => {{
      try {{
        return JSON.stringify(({function})(JSON.parse(argument)));
      }} catch (error) {{
        return JSON.stringify(error.message);
      }}
    }}"""
    answer = page.evaluate(code, json.dumps(argument))
    return None if answer is None else json.loads(answer)
