"""Lesson page: how long after a key the picture has changed, and how long the page takes to open.

python benchmarks/page.py

Real keys are pressed at the end of a text, in Chromium, with one diagram after another in view. The time runs from the
event of the key until the frame with the new picture has been laid out and painted. Frames are not held back for the screen
(60 a second would add up to 17 ms), so this is work: the model in its worker, the messages, the diagrams, the layout.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from machine import machine, result_file, typed_command
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from browsers import find_browser  # noqa: E402

PLACES = ["map", "next", "tokens", "project", "attention", "heads", "habits", "twice", "feedforward", "stream", "lens"]
PLACES += ["follow", "sampling", "apart", "patch", "loss", "cache", "work", "bits"]
LENGTHS = [16, 127]  # tokens
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

CUT = """(length) => {
  const { tokenizer } = GPT.model;
  const ids = tokenizer.encode(document.getElementById("text").value).slice(0, length - 1);
  return tokenizer.decode(ids);
}"""


def key_to_picture(page: Page, place: str, keys: int) -> dict[str, float]:
    """Returns the median and the smallest time in milliseconds, with this diagram in the middle of the window."""
    page.evaluate(
        "(name) => document.querySelector(`[data-diagram=${name}]`).scrollIntoView({ block: 'center', behavior: 'instant' })",
        place,
    )
    page.evaluate("GPT.app.settled()")
    page.evaluate("window.spans = []")
    for i in range(keys):
        page.keyboard.press("Backspace" if i % 2 else "x")
        page.wait_for_function("(count) => window.spans.length > count", arg=i)
        page.wait_for_timeout(30)
    spans: list[float] = page.evaluate("window.spans")[2:]  # the first two compile
    return {"median_ms": round(median(spans), 1), "least_ms": round(min(spans), 1)}


def opening(browser: Any, times: int) -> dict[str, float]:
    """Returns the median of seconds from the address to the first picture, and to the last diagram."""
    first, last = [], []
    for _ in range(times):
        with browser.new_page(viewport={"width": 1440, "height": 900}) as page:
            page.goto((ROOT / "index.html").as_uri())
            page.wait_for_function("GPT.app.state.trace", polling="raf")
            first.append(page.evaluate("performance.now()"))
            page.wait_for_function(
                "[...document.querySelectorAll('main figure[data-diagram] > .diagram-body')].every((e) => e.childElementCount)",
                polling="raf",
            )
            last.append(page.evaluate("performance.now()"))
    return {"first_picture_s": round(median(first) / 1000, 2), "last_diagram_s": round(median(last) / 1000, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=22, help="keys pressed for each diagram (default: 22)")
    parser.add_argument("--places", nargs="+", default=PLACES, help="diagrams (default: those that follow the text)")
    options = parser.parse_args()
    flags = ["--no-sandbox", "--disable-frame-rate-limit", "--disable-gpu-vsync"]
    found: dict[str, Any] = {"command": typed_command(), "machine": machine("playwright")}
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=find_browser(), args=flags) as browser:
        found["browser"] = f"Chromium {browser.version}"
        found["opening"] = opening(browser, 5)
        print(found["opening"], flush=True)
        with browser.new_page(viewport={"width": 1440, "height": 900}) as page:
            page.goto((ROOT / "index.html").as_uri())
            page.evaluate("GPT.app.settled()")
            page.evaluate(LISTEN)
            for length in LENGTHS:
                page.fill("#text", TEXT)
                page.fill("#text", page.evaluate(CUT, length))
                page.evaluate("async () => { await GPT.app.settled(); dispatchEvent(new Event('beforeprint')); }")
                page.focus("#text")
                page.keyboard.press("Control+End")
                tokens = page.evaluate("GPT.app.state.tokens.length")
                for place in options.places:
                    times = key_to_picture(page, place, options.keys)
                    found.setdefault("key_to_picture", {}).setdefault(f"{length} tokens", {})[place] = times
                    print(f"{tokens:4} tokens  {place:12} {times['median_ms']:6} ms  (least {times['least_ms']})", flush=True)
    if options.places == PLACES:
        result_file("page").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
