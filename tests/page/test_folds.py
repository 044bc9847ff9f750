"""Folds: code and side matter open by keyboard, link, control and on paper; diagrams inside are drawn then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from page.browsing import DRAWN, ROOT, faults_of

LESSON = (ROOT / "index.html").as_uri()
WITH_CODE = "details.fold:has(> figure.code)"
OPEN = "() => document.querySelectorAll('details.fold[open]').length"
MOUNTED = """(name) => document.querySelector(`[data-diagram=${name}] .diagram-body`).childElementCount"""
WIDTHS = """() => Array.from(document.querySelectorAll("details.fold .diagram :is(.chart svg, canvas, .map-box)"),
  (picture) => [picture.closest(".diagram").dataset.diagram, picture.getBoundingClientRect().width])"""


@pytest.fixture
def closed(browser: Browser) -> Iterator[Page]:
    """The lesson as it opens, without the event that paper sends: all folds are closed."""
    with browser.new_page(viewport={"width": 1200, "height": 900}) as page:
        wrong = faults_of(page)
        page.goto(LESSON)
        page.evaluate("GPT.app.settled()")
        yield page
        assert wrong == []


def test_a_diagram_in_a_fold_is_built_when_the_fold_opens_and_is_as_wide_as_its_place(closed: Page) -> None:
    assert closed.evaluate(OPEN) == 0
    assert [closed.evaluate(MOUNTED, name) for name in ("positions", "schedule", "batch")] == [0, 0, 0]
    summary = closed.locator("#training details.fold:has([data-diagram=schedule]) > summary")
    summary.focus()
    closed.keyboard.press("Enter")
    chart = closed.locator("[data-diagram=schedule] .chart svg")
    expect(chart).to_be_visible()
    body = closed.locator("[data-diagram=schedule] .diagram-body")
    assert (chart.bounding_box() or {})["width"] > 0.9 * (body.bounding_box() or {})["width"]
    summary.press("Enter")  # closed, while the window becomes narrow
    expect(chart).to_be_hidden()
    closed.set_viewport_size({"width": 390, "height": 844})
    summary.press("Enter")
    expect(chart).to_be_visible()
    closed.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
    assert closed.evaluate(MOUNTED, "batch") == 0


def test_a_term_can_be_lit_while_its_code_is_folded(closed: Page) -> None:
    closed.locator("dfn[data-term=query] button").click()
    code = closed.locator("#attention pre [data-term=query]").first
    expect(code).to_be_hidden()
    closed.locator("#attention details.fold > summary").last.click()
    expect(code).to_be_visible()
    assert code.evaluate("element => getComputedStyle(element).boxShadow") != "none"


def test_one_control_opens_all_code_and_is_remembered_for_the_visit(closed: Page) -> None:
    control = closed.get_by_label("Show all code")
    control.focus()  # beside the contents, or behind their button
    closed.keyboard.press("Space") if control.is_visible() else control.evaluate("element => element.click()")
    codes = closed.locator(f"{WITH_CODE} pre")
    assert codes.count() >= 10
    for code in codes.all():
        expect(code).to_be_visible()
    closed.reload()
    expect(codes.first).to_be_visible()
    closed.get_by_label("Show all code").evaluate("element => element.click()")
    expect(codes.first).to_be_hidden()
    assert closed.locator(f"{WITH_CODE}[open]").count() == 0


def test_a_browser_that_refuses_storage_still_opens_all_code(browser: Browser) -> None:
    with browser.new_page() as page:
        wrong = faults_of(page)
        page.add_init_script("""Object.defineProperty(window, "sessionStorage", {
          get() { throw new DOMException("refused", "SecurityError"); } })""")
        page.goto(LESSON)
        page.get_by_label("Show all code").evaluate("element => element.click()")
        expect(page.locator("#attention pre")).to_be_visible()
        assert wrong == []


def test_a_link_to_a_part_in_a_fold_opens_it(closed: Page) -> None:
    heading = "document.querySelector('#noise h2').getBoundingClientRect().top"
    closed.locator("#training a[href='#noise']").click()
    expect(closed.locator("[data-diagram=batch] svg").first).to_be_attached()
    closed.wait_for_function(f"{heading} < innerHeight / 2")
    assert closed.evaluate(OPEN) == 1
    closed.evaluate("document.querySelector('[data-diagram=scale]').id = 'six'")
    closed.evaluate("location.hash = '#later'")
    closed.evaluate("""() => {
      const link = Object.assign(document.createElement("a"), { href: "#six", textContent: "six" });
      document.querySelector("#later h2").after(link);
      link.click();
    }""")
    expect(closed.locator("#six table")).to_be_visible()


def test_paper_opens_all_folds_with_their_diagrams_and_closes_them_again(closed: Page) -> None:
    opened = closed.locator("#block details.fold").first
    opened.locator("> summary").click()
    closed.evaluate(DRAWN)
    assert closed.locator("details.fold:not([open])").count() == 0
    widths = closed.evaluate(WIDTHS)
    assert {"positions", "schedule", "batch", "norm"} <= {name for name, _ in widths}
    assert [name for name, width in widths if width < 20] == []
    closed.evaluate("dispatchEvent(new Event('afterprint'))")
    assert closed.evaluate(OPEN) == 1
    expect(opened).to_have_attribute("open", "")


def test_a_model_of_one_position_has_no_other_row(
    exported: Callable[..., dict[str, Any]], opened_model: Callable[[dict[str, Any]], tuple[Page, list[str]]]
) -> None:
    page, wrong = opened_model(exported(max_seq_len=1))
    page.evaluate(DRAWN)
    for choice in page.locator("[data-diagram=positions] input").all():
        choice.check(force=True)
        page.evaluate(DRAWN)
        assert "undefined" not in page.locator("[data-diagram=positions]").inner_text()
    page.locator("[data-diagram=positions] input").first.check(force=True)
    expect(page.locator("[data-diagram=positions] .reading")).to_contain_text("The table has no other.")
    assert wrong == []
