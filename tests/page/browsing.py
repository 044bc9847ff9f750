"""Finds an installed Chromium or Chrome, and evaluates JavaScript in its pages."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsers import find_browser
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]
TEXT = "ROMEO:\nBut, soft! what light through yonder window"
DRAWN = "async () => { await GPT.app.settled(); dispatchEvent(new Event('beforeprint')); }"
"""Waits until what was typed is computed and drawn, then also draws the diagrams that are out of view."""

only_in_chromium = pytest.mark.parametrize("browser", ["chromium"], indirect=True, scope="package")
"""For tests that choose a colour scheme or reduced motion: Playwright cannot do that in an installed Firefox."""

OTHER_SETTINGS: list[dict[str, Any]] = [
    {"position": "alibi", "num_layers": 1, "activation": "relu", "bias": False},
    {"position": "sinusoidal", "tie_embeddings": False, "activation": "gelu_tanh"},
    {"position": "rotary", "norm": "rmsnorm", "activation": "swiglu", "num_kv_heads": 2, "bias": False},
    {"num_heads": 1, "num_kv_heads": 1, "max_seq_len": 1},
]
"""Models that differ from the page's own in every setting that it shows."""

LOGITS = """([exported, tokens]) => {
  const model = GPT.load(exported || GPT.exported);
  const trace = model.run(tokens);
  return tokens.map((_, t) => Array.from(trace.logits(t)));
}"""
"""The logits (T, V) of an exported model; null stands for the page's own model."""


def browser_path(engine: str = "chromium") -> str:
    """Returns the path of an installed chromium or firefox. Without one, tests are skipped; if CI is set, they fail."""
    try:
        return find_browser(engine)
    except FileNotFoundError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


def faults_of(page: Page) -> list[str]:
    """Returns a list that will collect the page's errors, warnings, failed requests, and requests to the network."""
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("requestfailed", lambda request: found.append(f"failed: {request.url[:100]}"))
    page.on("request", lambda request: found.append(request.url) if request.url.startswith("http") else None)
    return found


def compute(page: Page, function: str, argument: Any = None) -> Any:
    """Returns the result of a JavaScript function for an argument, or the message of the error that it throws.

    Both are passed as JSON, which for many numbers takes a tenth of the time of Playwright's own serialisation.
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


def serious_faults(page: Page, scheme: str, rules: list[str] | None = None) -> list[tuple[str, str]]:
    """Returns what axe finds serious or critical: names of rules, and elements. Dark differs from light in contrast."""
    rules = ["color-contrast"] if scheme == "dark" else rules
    chosen = {"runOnly": rules} if rules else {}
    found = Axe().run(page, options={"preload": False, **chosen}).response["violations"]
    return [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in found if rule["impact"] in ("serious", "critical")]
