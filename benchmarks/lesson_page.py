"""Lesson page: how long after a key the picture has changed, and how long the page takes to open.

python benchmarks/lesson_page.py

Real keys are pressed at the end of a text, in Chromium, with one diagram after another in view. The time runs from the
event of the key until the frame with the new picture has been laid out and painted. Frames do not wait for the screen
(60 a second would add up to 17 ms), so this is work: the model, the diagrams, the layout. The time of a cached step of
the model in the page is measured beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from machine import machine, result_file, typed_command
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from browsers import find_browser  # noqa: E402

PLACES = ["map", "next", "tokens", "project", "attention", "heads", "habits", "twice", "feedforward", "stream", "lens"]
PLACES += ["follow", "sampling", "apart", "patch", "loss", "cache", "work", "bits"]
LENGTHS = [16, 127]  # tokens
WINDOW: Any = {"width": 1440, "height": 900}  # pixels
TEXT = "ROMEO:\nBut, soft! what light through yonder window breaks? It is the east, and Juliet is the sun. " * 5

LISTEN = """() => {
  window.spans = [];
  document.addEventListener("input", (event) => {
    const before = GPT.app.state.trace;
    const look = () => {
      if (GPT.app.state.trace === before) return void requestAnimationFrame(look);
      const { port1, port2 } = new MessageChannel(); // its message comes after the layout and painting of this frame
      port1.onmessage = () => window.spans.push(performance.now() - event.timeStamp);
      port2.postMessage(null);
    };
    requestAnimationFrame(look);
  }, { capture: true }); // before the page itself sees the event
}"""

STEP = """() => {
  const { app, model } = GPT;
  const cache = model.start();
  const tokens = app.state.tokens.slice(0, -1);
  model.advance(tokens, cache);
  const times = Array.from({ length: 30 }, () => {
    cache.length = tokens.length;
    const begun = performance.now();
    model.step(cache, 5);
    return performance.now() - begun;
  });
  return times.sort((a, b) => a - b)[15];
}"""

CUT = """(length) => {
  const { tokenizer } = GPT.model;
  const ids = tokenizer.encode(document.getElementById("text").value).slice(0, length - 1);
  return tokenizer.decode(ids);
}"""


def key_to_picture(page: Page, place: str, keys: int) -> dict[str, float]:
    """Returns the median and the smallest time in milliseconds, with this diagram in the middle of the window."""
    page.locator(f"[data-diagram={place}]").evaluate(
        "(element) => element.scrollIntoView({ block: 'center', behavior: 'instant' })"
    )
    page.evaluate("GPT.app.settled()")
    page.evaluate("window.spans = []")
    for i in range(keys):
        page.keyboard.press("Backspace" if i % 2 else "x")
        page.wait_for_function("(count) => window.spans.length > count", arg=i)
        page.wait_for_timeout(30)
    spans: list[float] = page.evaluate("window.spans")[2:]  # the first two compile
    return {"median_ms": round(median(spans), 1), "least_ms": round(min(spans), 1)}


def opening(browser: Browser, times: int) -> float:
    """Returns the median of seconds from the address to the first picture."""
    found = []
    for _ in range(times):
        with browser.new_page(viewport=WINDOW) as page:
            page.goto((ROOT / "index.html").as_uri())
            page.wait_for_function("GPT.app.state.trace", polling="raf")
            found.append(page.evaluate("performance.now()"))
    return round(median(found) / 1000, 2)


def measure(page: Page, length: int, places: list[str], keys: int) -> dict[str, Any]:
    """Returns the times for a text of so many tokens, with each diagram in view."""
    page.fill("#text", TEXT)
    page.fill("#text", page.evaluate(CUT, length))
    page.evaluate("async () => { await GPT.app.settled(); dispatchEvent(new Event('beforeprint')); }")
    page.focus("#text")
    page.keyboard.press("Control+End")
    found: dict[str, Any] = {"tokens": page.evaluate("GPT.app.state.tokens.length")}
    found["cached_step_ms"] = round(page.evaluate(STEP), 2)
    print(f"{found['tokens']} tokens; a cached step takes {found['cached_step_ms']} ms", flush=True)
    for place in places:
        found[place] = key_to_picture(page, place, keys)
        print(f"  {place:12} {found[place]['median_ms']:6} ms  (least {found[place]['least_ms']})", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=22, help="keys pressed for each diagram (default: 22)")
    parser.add_argument("--places", nargs="+", default=PLACES, help="diagrams (default: those that follow the text)")
    options = parser.parse_args()
    flags = ["--no-sandbox", "--disable-frame-rate-limit", "--disable-gpu-vsync"]
    found: dict[str, Any] = {"command": typed_command(), "machine": machine("playwright")}
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=find_browser(), args=flags) as browser,
    ):
        found["browser"] = f"Chromium {browser.version}"
        found["opening_s"] = opening(browser, 5)
        print(f"first picture after {found['opening_s']} s", flush=True)
        with browser.new_page(viewport=WINDOW) as page:
            page.goto((ROOT / "index.html").as_uri())
            page.evaluate("GPT.app.settled()")
            page.evaluate(LISTEN)
            found["key_to_picture"] = [measure(page, length, options.places, options.keys) for length in LENGTHS]
    if options.places == PLACES:
        result_file("lesson_page").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
