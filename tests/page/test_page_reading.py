"""Links land at their chapter and stay there; changes of the text can be taken back; formulas bring their own font.

Everything is done as a reader does it: clicks, keys, the wheel, with motion.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from page.browsing import DRAWN, ROOT, only_in_chromium

LESSON = (ROOT / "index.html").as_uri()
SIZES = {390: 844, 768: 1024, 1440: 900, 1920: 1080}
TEXT_BOX = "#text"

GAP = """(id) => document.querySelector(`#${id} h2`).getBoundingClientRect().top
  - document.querySelector(".reader").getBoundingClientRect().bottom"""
"""How far the heading of a chapter is below the text box."""

CORNER = """() => {
  const canvas = document.querySelector("[data-diagram=embeddings] canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const pixels = Array.from({ length: data.length / 4 }, (_, i) => data.slice(4 * i, 4 * i + 3));
  return Math.max(...pixels.map(([red, green, blue]) => red + green + blue));
}"""
"""The sum of red, green and blue of the lightest pixel of a strip of numbers."""

SHIFTS = """() => {
  window.shifts = [];
  new PerformanceObserver((list) => {
    for (const { value, hadRecentInput } of list.getEntries()) if (!hadRecentInput) window.shifts.push(value);
  }).observe({ type: "layout-shift", buffered: true });
}"""


@pytest.fixture(scope="module")
def reading(browser: Browser) -> Iterator[Page]:
    """One page for the quick tests of this file, as wide as a laptop."""
    with browser.new_page(viewport={"width": 1440, "height": 900}) as page:
        page.goto(LESSON)
        yield page


@pytest.fixture
def fresh(reading: Page) -> Page:
    """The same page, loaded again: at the top, with the text at the beginning, and nothing to take back."""
    reading.goto("about:blank")
    reading.set_viewport_size({"width": 1440, "height": 900})
    reading.goto(LESSON)
    return reading


def assert_at(page: Page, chapter: str) -> None:
    """The chapter's heading stands just below the text box, also after everything is drawn and some time has passed."""
    page.evaluate(DRAWN)
    page.wait_for_function(f"(id) => Math.abs(({GAP})(id) - 12) < 12", arg=chapter)
    page.wait_for_timeout(300)
    assert 0 <= page.evaluate(GAP, chapter) < 24


@pytest.mark.slow
def test_contents_and_links_lead_to_the_heading_and_stay_there(fresh: Page) -> None:
    """Diagrams above the chapter were drawn on the way and moved it: the reader stopped thousands of pixels short."""
    fresh.locator(".contents a[href='#sampling']").click()
    assert_at(fresh, "sampling")
    expect(fresh.locator(".contents [aria-current]")).to_have_attribute("href", "#sampling")
    fresh.locator(".contents a[href='#heads']").click()
    assert_at(fresh, "heads")
    fresh.go_back()
    assert_at(fresh, "sampling")
    fresh.go_forward()
    assert_at(fresh, "heads")
    fresh.goto("about:blank")
    fresh.goto(f"{LESSON}#generation")
    assert_at(fresh, "generation")
    fresh.mouse.wheel(0, 400)
    fresh.wait_for_function("history.state.scrolled === scrollY && history.state.top < 0")
    fresh.reload()
    fresh.evaluate(DRAWN)
    fresh.wait_for_function(f"({GAP})('generation') < -300")
    fresh.wait_for_timeout(300)
    assert fresh.evaluate(GAP, "generation") == pytest.approx(18 - 400, abs=12)
    fresh.mouse.wheel(0, -200_000)
    expect(fresh.locator(".contents [aria-current]")).to_have_attribute("href", "#what")


@pytest.mark.slow
@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("chapter", ["attention", "sampling", "try"])
def test_contents_lead_to_the_heading_at_every_width(browser: Browser, width: int, chapter: str) -> None:
    with browser.new_page(viewport={"width": width, "height": SIZES[width]}) as page:
        page.goto(LESSON, wait_until="domcontentloaded")  # styled, so what is hidden is hidden, but not yet drawn
        page.locator(f"a[href='#{chapter}']").locator("visible=true").first.click()
        assert_at(page, chapter)
        page.wait_for_timeout(2500)
        assert_at(page, chapter)
        page.goto("about:blank")
        page.goto(f"{LESSON}#{chapter}")
        assert_at(page, chapter)


@pytest.mark.slow
@pytest.mark.parametrize("width", SIZES)
def test_nothing_jumps_while_one_scrolls_through(browser: Browser, width: int) -> None:
    if browser.browser_type.name != "chromium":
        pytest.skip("only Chromium measures layout shifts")
    with browser.new_page(viewport={"width": width, "height": SIZES[width]}) as page:
        page.add_init_script(f"({SHIFTS})()")
        page.goto(LESSON)
        page.evaluate("GPT.app.settled()")
        end = "scrollY + innerHeight > document.documentElement.scrollHeight - 5"
        for _ in range(300):
            page.mouse.wheel(0, 500)
            page.wait_for_timeout(30)
            if page.evaluate(end):
                break
        assert page.evaluate(end)
        assert sum(page.evaluate("window.shifts")) < 0.1


def test_the_space_above_a_heading_is_as_high_as_the_text_box(reading: Page) -> None:
    padding = "parseFloat(getComputedStyle(document.documentElement).scrollPaddingTop)"
    before = reading.evaluate(padding)
    reading.fill(TEXT_BOX, "One line\nand another\nand a third")
    reading.evaluate(DRAWN)
    reading.wait_for_function("document.querySelector('.reader').offsetHeight === " + padding)
    assert reading.evaluate(padding) > before + 20


def test_at_double_size_the_text_stays_in_sight(reading: Page) -> None:
    """A window of 1440 x 900 at 200% zoom has 720 x 450 pixels: one typed without seeing the diagram."""
    reading.set_viewport_size({"width": 720, "height": 450})
    reading.locator("#attention h2").scroll_into_view_if_needed()
    reading.evaluate("document.querySelector('[data-diagram=attention]').scrollIntoView()")
    box = reading.locator(".reader").bounding_box()
    assert box is not None
    assert box["y"] == 0
    assert box["height"] < 450 / 4
    expect(reading.locator(TEXT_BOX)).to_be_in_viewport()
    expect(reading.locator("#strip .token").first).to_be_in_viewport()
    reading.set_viewport_size({"width": 1440, "height": 900})


@pytest.mark.slow
def test_every_change_of_the_text_can_be_taken_back(fresh: Page) -> None:
    box, text = fresh.locator(TEXT_BOX), lambda: fresh.input_value(TEXT_BOX)
    beginning = text()
    form = fresh.get_by_role("form", name="Your text")
    undo, restart = form.get_by_role("button", name="Undo"), form.get_by_role("button", name="Start again")
    expect(undo).to_have_attribute("aria-disabled", "true")
    fresh.evaluate(DRAWN)
    fresh.locator("[data-diagram=next] .bars button").first.click()
    one = text()
    assert one.startswith(beginning)
    assert one != beginning
    fresh.evaluate(DRAWN)
    fresh.locator("[data-diagram=next] .bars button").first.click()
    two = text()
    fresh.keyboard.press("Control+z")  # the focus is on a bar
    assert text() == one
    fresh.keyboard.press("Control+Shift+z")
    assert text() == two
    box.press("End")
    fresh.keyboard.type(" is here")
    assert text() == f"{two} is here"
    for _ in " is here":  # words if one types fast, letters if one types slowly
        if text() != two:
            fresh.keyboard.press("Control+z")
    assert text() == two
    fresh.locator("[data-text]").nth(1).click()
    example = text()
    undo.click()
    assert text() != example
    restart.click()
    assert text() == beginning
    fresh.evaluate(DRAWN)
    assert "".join(fresh.evaluate("GPT.app.state.pieces.map(({ text }) => text)")) == beginning
    undo.click()
    assert text() != beginning


@pytest.mark.parametrize(
    ("text", "signs"),
    [("plain words", []), ("你好 a", ["你", "好"]), ("so \U0001f468\u200d\U0001f469\u200d\U0001f467!", 1)],
)
def test_tokens_that_make_one_character_are_bracketed_with_it(reading: Page, text: str, signs: list[str] | int) -> None:
    reading.fill(TEXT_BOX, text)
    reading.evaluate(DRAWN)
    for part in ("#strip", "[data-diagram=tokens] .cards"):
        shown = reading.locator(f"{part} .character-sign").all_inner_texts()
        assert (len(shown) if isinstance(signs, int) else shown) == signs
        for group in reading.locator(f"{part} .character").all():
            assert group.locator("button").count() > 1
            sign = group.locator(".character-sign").inner_text()
            assert f"make {sign}" in (group.get_attribute("aria-label") or "")
    pieces = reading.evaluate("GPT.app.state.pieces.map(({ bytes }) => Array.from(bytes))")
    for group in reading.evaluate("GPT.characters.groups(GPT.app.state.pieces)"):
        own = bytes(byte for piece in pieces[group["from"] : group["to"]] for byte in piece)
        assert own.decode("utf-8") == group["text"]


def test_roots_are_drawn_and_every_sign_of_a_formula_comes_from_the_pages_own_font(reading: Page) -> None:
    """Chromium omits the sign of a root without a font that has a MATH table: readers were taught a wrong formula."""
    reading.evaluate("document.fonts.ready")
    roots = reading.evaluate("""() => Array.from(document.querySelectorAll("msqrt")).filter((root) =>
      root.checkVisibility()).map((root) =>
      root.getBoundingClientRect().width - Array.from(root.children).reduce((sum, child) =>
        sum + child.getBoundingClientRect().width, 0))""")
    assert len(roots) >= 2
    assert min(roots) > 5
    if reading.context.browser and reading.context.browser.browser_type.name != "chromium":
        return  # only Chromium tells which font it draws with
    session = reading.context.new_cdp_session(reading)
    for domain in ("DOM", "CSS"):
        session.send(f"{domain}.enable")
    document = session.send("DOM.getDocument", {"depth": 0})["root"]["nodeId"]
    formulas = session.send("DOM.querySelectorAll", {"nodeId": document, "selector": "math"})["nodeIds"]
    fonts = {
        (font["familyName"], font["isCustomFont"])
        for node in formulas
        for font in session.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]
    }
    assert fonts == {("Lesson Math", True)}


def test_formulas_have_the_same_edge_at_the_left(reading: Page) -> None:
    edges = reading.evaluate("""() => Array.from(document.querySelectorAll(".formula")).filter((formula) =>
      formula.checkVisibility()).map((formula) =>
      formula.querySelector("math > *").getBoundingClientRect().left - formula.getBoundingClientRect().left)""")
    assert len(edges) >= 10
    assert max(edges) - min(edges) < 4  # the width of a margin that belongs to the first sign


@only_in_chromium
@pytest.mark.slow
def test_paper_is_light_with_every_colour_answer_and_token(reading: Page) -> None:
    """Bars and chips vanished on paper, answers stayed closed, and the line of tokens was cut off at the right."""
    reading.fill(TEXT_BOX, "to be or not to be, that is the question " * 4)
    reading.emulate_media(media="screen", color_scheme="dark")
    reading.evaluate(DRAWN)
    dark = reading.evaluate(CORNER)
    reading.emulate_media(media="print", color_scheme="dark")
    reading.evaluate(DRAWN)
    found = reading.evaluate("""() => ({
      paper: getComputedStyle(document.body).backgroundColor,
      adjust: getComputedStyle(document.querySelector(".bars-bar")).printColorAdjust,
      closed: Array.from(document.querySelectorAll("details.check:not([open]) p"), (p) => p.offsetHeight),
      buttons: document.querySelector(".reader-buttons").offsetHeight,
      box: getComputedStyle(document.querySelector(".reader")).position,
      cut: document.querySelector("#strip").scrollWidth - document.querySelector("#strip").clientWidth,
    })""")
    light = reading.evaluate(CORNER)
    reading.emulate_media(media="screen", color_scheme="light")
    assert found["paper"] == "rgb(255, 255, 255)"
    assert found["adjust"] == "exact"
    assert len(found["closed"]) > 10
    assert min(found["closed"]) > 10
    assert (found["buttons"], found["box"], found["cut"]) == (0, "static", 0)
    assert light > dark + 100  # 0 is dark on the screen, and white on paper
