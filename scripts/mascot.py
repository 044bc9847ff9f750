"""Renders assets/mascot.svg to assets/mascot.png with Chromium or Chrome.

python scripts/mascot.py
"""

from __future__ import annotations

from pathlib import Path

from browsers import find_browser
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
SIZE = 640  # pixels


def main() -> None:
    drawing = (ROOT / "assets" / "mascot.svg").read_text(encoding="utf-8")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=find_browser()) as browser:
        page = browser.new_page(viewport={"width": SIZE, "height": SIZE})
        page.set_content(f"<style>* {{ margin: 0 }} svg {{ display: block; width: {SIZE}px }}</style>{drawing}")
        page.screenshot(path=ROOT / "assets" / "mascot.png", omit_background=True)


if __name__ == "__main__":
    main()
