"""Buttons that switch themselves off keep the focus; diagrams survive another's error, small windows and old values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from page.browsing import DRAWN, ROOT, TEXT, only_in_chromium

FOCUSED = (
    "() => document.activeElement.closest('button, [role=slider], ol')?.textContent ?? document.activeElement.tagName"
)
MAP = """(figure) => figure.querySelector("canvas").toDataURL()"""


@pytest.fixture
def page(shared_lesson: Page) -> Page:
    if shared_lesson.input_value("#text") != TEXT:
        shared_lesson.fill("#text", TEXT)
        shared_lesson.evaluate(DRAWN)
    return shared_lesson


def diagram(page: Page, name: str) -> Locator:
    found = page.locator(f"[data-diagram={name}]")
    found.scroll_into_view_if_needed()
    return found


def text_at_rest(page: Page, name: str) -> str:
    """The text of a diagram after its numbers have flown to their places."""
    texts = [diagram(page, name).inner_text()]
    while len(texts) < 30 and texts[-3:] != [texts[-1]] * 3:
        page.wait_for_timeout(200)
        texts.append(diagram(page, name).inner_text())
    return texts[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pressed", "most"),
    [("follow", "Next →", 20), ("follow", "← Back", 20), ("project", "Next ›", 60), ("project", "‹ Back", 60)],
)
def test_a_button_that_switches_itself_off_keeps_the_focus(page: Page, name: str, pressed: str, most: int) -> None:
    button = diagram(page, name).get_by_role("button", name=pressed)
    button.focus()
    for _ in range(most):
        page.keyboard.press("Enter")
        if button.get_attribute("aria-disabled") == "true":
            break
    else:
        pytest.fail(f"{pressed} is on after {most} presses")
    assert page.evaluate(FOCUSED) == pressed
    before = text_at_rest(page, name)
    page.keyboard.press("Enter")  # off
    assert text_at_rest(page, name) == before


def test_all_on_and_the_bars_keep_the_focus(page: Page) -> None:
    figure = diagram(page, "apart")
    figure.get_by_role("button", name="No attention").click()
    figure.get_by_role("button", name="All on").press("Enter")
    assert page.evaluate(FOCUSED) == "All on"
    expect(figure.locator("[aria-pressed=false]")).to_have_count(0)
    page.evaluate("() => { GPT.bars = GPT.parts.bars('three'); document.body.append(GPT.bars.element); }")
    show = """(kinds) => GPT.bars.show(kinds.map((isButton, i) => (
      { label: `bar ${i}`, fraction: 0.5, text: "", onclick: isButton && (() => {}) })))"""
    page.evaluate(show, [True, True, True])
    page.locator("[aria-label=three] button").last.focus()
    page.evaluate(show, [True, True, False])
    assert page.evaluate(FOCUSED) == "bar 1"
    page.evaluate(show, [False])
    assert page.evaluate("() => document.activeElement.getAttribute('aria-label')") == "three"
    page.evaluate("() => GPT.bars.element.remove()")


def test_the_maps_bar_that_appends_keeps_the_focus(page: Page) -> None:
    bar = page.locator(".map-bar").first
    bar.focus()
    page.evaluate("() => GPT.app.set({ token: 0 })")
    page.evaluate(DRAWN)
    assert bar.get_attribute("aria-disabled") == "true"
    assert bar.evaluate("(bar) => bar === document.activeElement")
    page.keyboard.press("Enter")
    assert page.input_value("#text") == TEXT
    page.evaluate("() => GPT.app.set({ token: Infinity })")
    page.evaluate(DRAWN)


@pytest.mark.slow
def test_all_parts_off_are_counted_and_heads_of_a_layer_that_is_off_are_not_named(page: Page) -> None:
    figure = diagram(page, "apart")
    for key in ("1.head.0", "1.feedforward", "1.block"):
        figure.locator(f"[data-key='{key}']").click()
    expect(figure.locator(".apart-sentence")).to_contain_text("Without layer 2, ")
    figure.locator(".board [aria-pressed=true]").evaluate_all("(parts) => parts.forEach((part) => part.click())")
    expect(figure.locator(".apart-sentence")).to_contain_text("Without 6 parts, ")  # four layers, positions, last norm
    figure.get_by_role("button", name="All on").click()


def test_micro_batches_that_are_done_are_never_more_than_there_are(page: Page) -> None:
    figure = diagram(page, "accumulate")
    move = "(input, [value]) => { input.value = value; input.dispatchEvent(new Event('input', { bubbles: true })); }"
    sizes, steps = figure.locator("input").all()
    sizes.evaluate(move, ["1"])
    page.evaluate(DRAWN)
    figure.evaluate(
        f"""(figure) => {{
          const move = {move};
          const [sizes, steps] = figure.querySelectorAll("input");
          move(sizes, ["8"]);
          move(steps, ["9"]);  // before the next frame
        }}"""
    )
    page.evaluate(DRAWN)
    expect(figure.locator(".reading")).to_contain_text("All micro-batches are done")
    assert steps.input_value() == str(figure.locator(".micro-batch.is-done").count())


def test_the_page_fits_a_window_of_320_pixels(page: Page) -> None:
    before = page.viewport_size
    assert before
    page.set_viewport_size({"width": 320, "height": 700})
    page.evaluate("() => GPT.app.set({})")  # all diagrams are drawn at this width
    page.evaluate(DRAWN)
    beyond = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
    page.set_viewport_size(before)
    assert beyond == 0  # a scroll bar, as Firefox has, takes some of the 320


@only_in_chromium
def test_the_wiggled_matrix_is_painted_again_in_other_colours(page: Page) -> None:
    figure = diagram(page, "wiggle")
    expect(figure.locator(".steps dd")).to_have_count(2, timeout=30_000)
    light = figure.evaluate(MAP)
    page.emulate_media(color_scheme="dark")
    page.evaluate(DRAWN)
    assert figure.evaluate(MAP) != light
    page.emulate_media(color_scheme="dark", media="print")
    page.wait_for_function(f"(light) => ({MAP})(document.querySelector('[data-diagram=wiggle]')) === light", arg=light)
    page.emulate_media(color_scheme="light", media="screen")


def test_steps_that_are_far_too_long_end_with_weights_that_undo_restores(page: Page) -> None:
    figure = diagram(page, "wiggle")
    status, step = figure.locator("[role=status]"), figure.get_by_role("button", name="One step of all weights")
    figure.get_by_role("button", name="Undo the steps").click()
    expect(figure.locator(".steps dd")).to_have_count(2, timeout=30_000)
    begun = figure.locator(".chart-box .readout").inner_text()
    figure.get_by_label("Learning rate").press("End")  # 10
    for _ in range(60):
        step.evaluate("(button) => button.click()")
        if step.get_attribute("aria-disabled") == "true":
            break
    expect(status).to_contain_text("made the weights unusable")
    said = status.inner_text()
    step.evaluate("(button) => button.click()")
    assert status.inner_text() == said
    for wrong in ("NaN", "Infinity", "e+"):
        assert wrong not in figure.inner_html()
    figure.get_by_role("button", name="Undo the steps").click()
    assert figure.locator(".chart-box .readout").inner_text() == begun
    expect(step).to_be_enabled()


@pytest.mark.slow
def test_training_buttons_keep_the_focus_and_another_text_shows_no_old_step(page: Page) -> None:
    figure = diagram(page, "learn")
    figure.get_by_label("The text to learn from").fill("a" * 3000)
    assert figure.locator("progress").evaluate("(bar) => bar.value") == 0
    expect(figure.locator(".train-samples li:not(.is-open)")).to_have_count(1, timeout=30_000)
    figure.get_by_role("button", name="Start").press("Enter")
    assert page.evaluate(FOCUSED) in ("Start", "Continue")
    page.wait_for_function("() => document.querySelector('[data-diagram=learn] progress').value >= 120", timeout=60_000)
    expect(figure.locator(".reading")).not_to_contain_text("only counts bytes")
    old = """(figure) => {
      const box = figure.querySelector("textarea");
      box.value = "b".repeat(3000);
      box.dispatchEvent(new Event("input"));
      return new Promise((done) => {
        const seen = new Set();
        const watch = () => { seen.add(figure.querySelector("progress").value); };
        const watching = setInterval(watch, 5);
        watch();
        setTimeout(() => { clearInterval(watching); done([...seen]); }, 500);
      });
    }"""
    assert figure.evaluate(old) == [0]
    expect(figure.locator(".reading")).to_contain_text("Press Start")
    figure.get_by_role("button", name="two acts").click()


@pytest.mark.slow
def test_a_diagram_that_throws_does_not_stop_the_others(opened: Callable[[Path], tuple[Page, list[str]]]) -> None:
    page, wrong = opened(ROOT / "index.html")
    page.evaluate(DRAWN)
    page.evaluate(
        """() => {
          const cards = document.querySelector("[data-diagram=tokens] .card").parentElement;
          cards.replaceChildren = () => { throw new Error("broken on purpose"); };
        }"""
    )
    page.fill("#text", "Another text")
    page.evaluate(DRAWN)
    expect(page.locator("[data-diagram=embeddings] .reading")).to_contain_text("text")
    assert len(wrong) == 1
    assert "broken on purpose" in wrong[0]
