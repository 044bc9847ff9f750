"""Takes screenshots of the lesson page: the whole page and each diagram, at four widths, light and dark.

python scripts/screenshots.py
"""

from __future__ import annotations

from pathlib import Path

from browsers import find_browser
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "runs" / "screenshots"
WIDTHS = (390, 768, 1440, 1920)  # pixels
SCHEMES = ("light", "dark")


def take(browser: Browser, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto((ROOT / "index.html").as_uri())
    page.wait_for_timeout(300)
    name = f"{width}-{scheme}"
    page.screenshot(path=FOLDER / f"{name}-top.png")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")  # draws the diagrams that are out of view
    page.screenshot(path=FOLDER / f"{name}-whole.png", full_page=True)
    page.add_style_tag(content=".reader { position: static !important; }")
    for figure in page.locator("[data-diagram]").all():
        figure.scroll_into_view_if_needed()
        page.wait_for_timeout(60)
        figure.screenshot(path=FOLDER / f"{name}-{figure.get_attribute('data-diagram')}.png")
    page.close()


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=find_browser()) as browser:
        for width in WIDTHS:
            for scheme in SCHEMES:
                take(browser, width, scheme)


if __name__ == "__main__":
    main()
