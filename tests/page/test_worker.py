"""Workers run the engine beside the page, also from a file; where browsers refuse them, the page computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from page.browsing import ROOT, compute

ASK = """() => new Promise((done) => {
  const worker = GPT.worker(["maths", "tokenizer", "forward"], (GPT, answer) => {
    let model = null;
    return ({ exported, tokens }) => {
      if (exported) model = GPT.load(exported);
      const logits = model.run(tokens).logits(tokens.length - 1);
      answer({ logits, isPage: typeof document !== "undefined" }, [logits.buffer]);
    };
  });
  const found = [];
  worker.onanswer = ({ logits, isPage }) => {
    found.push(Array.from(logits));
    if (found.length === 2) done({ found, isPage, isApart: worker.isApart });
  };
  worker.post({ exported: GPT.exported, tokens: [5, 6, 7] });
  worker.post({ tokens: [8] });
})"""

REFUSALS = {
    "none": "",
    "at once": "Worker = class { constructor() { throw new DOMException('refused', 'SecurityError'); } };",
    "later": """Worker = class {
      constructor() { setTimeout(() => this.onerror(new ErrorEvent("error"))); }
      postMessage() {}
    };""",
}


@pytest.fixture
def blank(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """The page's scripts in a file that is otherwise empty: nothing but the test starts a worker."""
    with browser.new_page(offline=True) as page:
        (tmp_path / "empty.html").touch()
        page.goto((tmp_path / "empty.html").as_uri())
        for name in ("worker", "maths", "tokenizer", "forward", "model"):
            page.add_script_tag(path=ROOT / "page" / f"{name}.js")
        yield page


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_worker_gives_the_pages_logits_and_the_page_does_if_it_is_refused(refusal: str, blank: Page) -> None:
    blank.evaluate(f"() => {{ {REFUSALS[refusal]} }}")
    answered = blank.evaluate(ASK)
    expected = """() => {
      const model = GPT.load(GPT.exported);
      return [[5, 6, 7], [8]].map((tokens) => Array.from(model.run(tokens).logits(tokens.length - 1)));
    }"""
    assert answered["found"] == compute(blank, expected)
    assert answered["isPage"] == (refusal != "none")
    assert answered["isApart"] == (refusal == "none")
