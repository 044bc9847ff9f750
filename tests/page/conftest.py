"""Fixtures for the page: one browser for all tests, an empty page with the engine, and tiny exported models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from page.browsing import DRAWN, ROOT, TEXT, browser_path, faults_of
from transformer import DecoderOnlyTransformer
from transformer.interop.lesson_page import export, script
from transformer.text import load_tokenizer

ENGINE = ["worker", "maths", "tokenizer", "sampling", "forward"]


# Playwright's event loop belongs to its thread, so the browser is closed before tests of another folder run.
# The installed Firefox is driven by WebDriver BiDi, which Playwright calls the channel "moz-firefox".
@pytest.fixture(scope="package", params=["chromium", pytest.param("firefox", marks=pytest.mark.slow)])
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """The tests of the page run in Chromium; the slow ones repeat them in Firefox."""
    path = browser_path(request.param)
    with sync_playwright() as playwright:
        if request.param == "firefox":
            running = playwright.firefox.launch(executable_path=path, channel="moz-firefox")
        else:
            running = playwright.chromium.launch(executable_path=path)
        with running:
            yield running


@pytest.fixture(scope="package")
def engine(browser: Browser) -> Iterator[Page]:
    """An empty page with the maths, tokenizer, sampling and forward pass of page/, but without a model."""
    with browser.new_page() as page:
        for name in ENGINE:
            page.add_script_tag(path=ROOT / "page" / f"{name}.js")
        yield page


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[[Path], tuple[Page, list[str]]]]:
    """opened(path) opens a file offline, as a double click does; returns the page and a list of its errors."""
    pages = []

    def show(path: Path) -> tuple[Page, list[str]]:
        page = browser.new_page(offline=True)
        pages.append(page)
        wrong = faults_of(page)
        page.goto(path.as_uri())
        return page, wrong

    yield show
    for page in pages:
        page.close()


@pytest.fixture
def lesson(opened: Callable[[Path], tuple[Page, list[str]]]) -> Iterator[Page]:
    """The page, opened from its file, offline, with TEXT in it; any error during the test fails it."""
    page, wrong = opened(ROOT / "index.html")
    page.fill("#text", TEXT)
    page.evaluate(DRAWN)
    yield page
    assert wrong == []


@pytest.fixture(scope="package")
def shared_lesson(browser: Browser) -> Iterator[Page]:
    """One page for tests that set their own text, because opening it is slow. An error fails the last of them."""
    with browser.new_page(offline=True) as page:
        wrong = faults_of(page)
        page.goto((ROOT / "index.html").as_uri())
        page.evaluate(DRAWN)
        yield page
    assert wrong == []


@pytest.fixture
def exported(tiny_model: Callable[..., DecoderOnlyTransformer]) -> Callable[..., dict[str, Any]]:
    """exported(position="rotary") is a tiny byte model with that setting, in the page's format."""

    def make(**settings: Any) -> dict[str, Any]:
        return export(tiny_model(**{"vocab_size": 257, **settings}), load_tokenizer("byte"), {})

    return make


@pytest.fixture
def opened_model(
    opened: Callable[[Path], tuple[Page, list[str]]], tmp_path: Path
) -> Callable[[dict[str, Any]], tuple[Page, list[str]]]:
    """opened_model(exported(...)) opens the lesson page of that model; returns what opened() does."""
    from transformer.cli.export_page import command as export_page

    def show(model: dict[str, Any]) -> tuple[Page, list[str]]:
        made = tmp_path / "page.html"
        made.write_text(export_page.page(script(model)), encoding="utf-8")
        return opened(made)

    return show
