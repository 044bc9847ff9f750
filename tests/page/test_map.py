"""The map on the first screen: the numbers behind its lines are PyTorch's, and its parts can be pressed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from page.browsing import DRAWN, ROOT, compute, only_in_chromium
from transformer.interop.lesson_page import dequantised_model

OpenedModel = Callable[[dict[str, Any]], tuple[Page, list[str]]]

DRAWING = """(_, $$ = (selector) => document.querySelectorAll(selector)) => ({
  own: Array.from($$(".map-own path"), ({ dataset }) => [dataset.column, Number(dataset.weight)]),
  streams: Array.from($$(".map-streams path"), ({ dataset }) => dataset.lengths.split(" ").map(Number)),
  discs: Array.from($$(".map-nodes circle"), ({ dataset }) => Number(dataset.length)),
  fan: Array.from($$(".map-fan path"), ({ dataset }) => Number(dataset.probability)),
  tokens: GPT.app.state.tokens,
  lines: GPT.map.lines(GPT.app.state, 11),
})"""
"""The numbers that the drawing carries beside its shapes."""

NARROWEST = """() => Math.min(...Array.from(document.querySelectorAll(".map-head"), (head) => {
  const { width, height } = head.getBoundingClientRect();
  return Math.min(width, height);
}))"""
"""The width, or on a phone the height, of the narrowest head."""

BOTTOM = "() => document.querySelector('.map-stage').getBoundingClientRect().bottom"


def check_the_contents(lesson: Page, attention: torch.Tensor) -> None:
    """The small map shows the chosen token, and how sharply each head, (heads of all layers, T), attends."""
    entropy = torch.special.entr(attention).sum(-1) / torch.tensor(float(attention.shape[1])).log()
    heads = lesson.locator(".small-head")
    shown = heads.evaluate_all("all => all.map(({ dataset }) => Number(dataset.sharpness))")
    assert shown == pytest.approx((1 - entropy).tolist(), abs=2e-3)
    at = compute(lesson, "() => 4 * GPT.app.state.layer + GPT.app.state.head")
    lit = heads.evaluate_all("all => all.map((head) => head.classList.contains('is-lit'))")
    assert lit == [index == at for index in range(len(lit))]
    assert lesson.locator(".contents .token").inner_text() == lesson.locator("#strip .token").last.inner_text()
    assert lesson.locator(".contents ol > li > a").count() == lesson.locator("main > section[id]").count()


@torch.no_grad()
def test_curves_streams_discs_and_fan_carry_pytorchs_numbers(lesson: Page) -> None:
    """The text is longer than the map: its first line gathers the earlier tokens."""
    shown = compute(lesson, DRAWING)
    model = dequantised_model(compute(lesson, "() => GPT.exported"))
    tokens = torch.tensor([shown["tokens"]])
    spans = [slice(line["first"], line["last"] + 1) for line in shown["lines"]]
    assert spans[0].stop > 1
    weights = [layer[0, :, -1] for layer in model.attention_weights(tokens)]  # of the last token: (H, T) each
    expected = [
        (f"{layer + 1}.{head + 1}", pytest.approx(float(weights[layer][head, span].sum()), abs=1e-4))
        for layer in range(model.config.num_layers)
        for head in range(model.config.num_heads)
        for span in spans
    ]
    assert [tuple(curve) for curve in shown["own"]] == expected
    check_the_contents(lesson, torch.cat(weights))
    context = model.context(tokens)
    x = model.embeddings(tokens, context.positions)
    lengths, discs = [x], []
    for block in model.layers:
        middle = x + block.attention(block.attention_norm(x), context)
        discs.append(block.feedforward(block.feedforward_norm(middle)))
        lengths += [x, middle, x := middle + discs[-1]]
    lengths.append(x)
    for drawn, span in zip(shown["streams"], spans, strict=True):
        assert drawn == pytest.approx([float(at[0, span].norm(dim=-1).mean()) for at in lengths], abs=2e-3)
    norms = [float(disc[0, span].norm(dim=-1).mean()) for disc in discs for span in spans]
    assert shown["discs"] == pytest.approx(norms, abs=2e-3)
    probs = model(tokens)[0, -1].softmax(-1)
    best = probs.topk(len(shown["fan"]) - 1).values
    assert shown["fan"] == pytest.approx([*best.tolist(), float(1 - best.sum())], abs=1e-4)


@pytest.mark.slow
def test_lines_heads_and_bars_are_pressed_and_moved_through_by_arrow_keys(lesson: Page) -> None:
    def chosen() -> list[int]:
        lesson.evaluate(DRAWN)
        found: list[int] = compute(lesson, "() => [GPT.app.state.token, GPT.app.state.layer, GPT.app.state.head]")
        return found

    lesson.locator(".map-head").nth(6).press("Enter")
    last = chosen()[0]
    assert chosen() == [last, 1, 2]
    lesson.keyboard.press("ArrowRight")
    assert chosen() == [last, 1, 3]
    lesson.locator(".map-chip[aria-pressed=true]").press("ArrowUp")
    assert chosen() == [last - 1, 1, 3]
    assert (
        lesson.locator(".map-bar[aria-disabled=false]").count() == 0
    )  # a token can only be appended after the last one
    lesson.locator(".map-hits path").nth(3).dispatch_event("click")
    assert chosen()[0] == last - 7
    lesson.keyboard.press("End")
    bar = lesson.locator(".map-bar").first
    written = bar.locator(".map-bar-label").inner_text()
    bar.press("Enter")
    assert chosen()[0] == last + 1
    assert lesson.locator(".map-chip").last.inner_text() == written
    check_write_on(lesson)


def check_write_on(lesson: Page) -> None:
    """Appends tokens until it is paused."""
    text = lesson.input_value("#text")
    button = lesson.locator(".map-write")
    button.click()
    lesson.wait_for_function("text => document.querySelector('#text').value.length > text.length + 3", arg=text)
    assert button.inner_text() == "Pause"
    expect(lesson.locator(".map-legend")).to_contain_text("by chance")
    button.click()
    written = lesson.input_value("#text")
    assert written.startswith(text)
    lesson.wait_for_timeout(500)
    assert lesson.input_value("#text") == written
    assert button.inner_text() == "Write on"
    expect(lesson.locator(".map-legend")).to_contain_text("The thickest curve")


ANIMATED = """() => {
  const { animate } = Element.prototype;
  window.animated = [];
  Element.prototype.animate = function (...all) {
    window.animated.push(this);
    return animate.apply(this, all);
  };
}"""


@pytest.mark.slow
@only_in_chromium
@pytest.mark.parametrize("motion", ["no-preference", pytest.param("reduce", marks=pytest.mark.slow)])
def test_a_part_of_the_map_grows_into_its_chapter_and_back_returns(browser: Browser, motion: str) -> None:
    with browser.new_page(viewport={"width": 1440, "height": 900}, reduced_motion=motion) as page:  # type: ignore[arg-type]
        page.goto((ROOT / "index.html").as_uri())
        page.evaluate(DRAWN)
        assert page.evaluate(BOTTOM) <= 900
        page.evaluate(ANIMATED)
        page.evaluate("() => GPT.app.write(GPT.app.state.text + ' king')")
        page.evaluate(DRAWN)
        assert (page.evaluate("() => animated.length") == 0) == (motion == "reduce")
        page.locator(".model-map a[href='#feedforward']").nth(1).click()
        page.wait_for_function("() => document.activeElement.hash === '#feedforward'")
        assert 0 <= page.locator("#feedforward h2").evaluate("heading => heading.getBoundingClientRect().top") < 300
        page.wait_for_function("() => document.querySelector('.contents [aria-current]')?.hash === '#feedforward'")
        grew = "() => animated.some((element) => element.closest('#feedforward'))"
        if motion == "reduce":
            assert not page.evaluate(grew)
        else:
            page.wait_for_function(grew)
        page.go_back()
        page.wait_for_function("() => scrollY === 0 && location.hash === ''")


@pytest.mark.slow
def test_a_phone_shows_the_whole_map_first(browser: Browser) -> None:
    with browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True) as page:
        page.goto((ROOT / "index.html").as_uri())
        page.evaluate(DRAWN)
        assert page.evaluate(BOTTOM) <= 844
        assert page.locator(".map-write").evaluate("button => button.getBoundingClientRect().bottom") <= 844
        assert page.locator(".map-head").count() == 16
        assert page.evaluate(NARROWEST) >= 23.9  # a finger's width


@pytest.mark.slow
@only_in_chromium  # Playwright sends no touches to an installed Firefox
def test_a_phone_opens_the_contents_by_touch(browser: Browser) -> None:
    with browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True) as page:
        page.goto((ROOT / "index.html").as_uri())
        page.evaluate(DRAWN)
        found = Axe().run(page, context=".model-map", options={"preload": False}).response["violations"]
        assert [rule["id"] for rule in found if rule["impact"] in ("serious", "critical")] == []
        contents, button = page.locator(".contents"), page.locator(".contents-open")
        assert not contents.is_visible()
        page.locator("#tokens").scroll_into_view_if_needed()
        button.tap()
        assert contents.is_visible()
        page.keyboard.press("Escape")
        assert not contents.is_visible()
        assert page.evaluate("() => document.activeElement.className") == "contents-open"
        page.keyboard.press("Enter")
        contents.locator("a[href='#heads']").tap()
        page.wait_for_function("() => document.activeElement.hash === '#heads'")
        assert not contents.is_visible()
        expect(button).to_have_text("Multi-head attention")
        page.set_viewport_size({"width": 768, "height": 1024})
        page.evaluate(DRAWN)
        page.wait_for_function("() => !document.querySelector('.map-stage').classList.contains('is-upright')")
        assert page.locator(".map-head").count() == 16
        assert page.evaluate(NARROWEST) >= 23.9


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"num_layers": 12, "num_heads": 12, "d_model": 48},
        {"num_layers": 30, "num_heads": 4, "num_kv_heads": 1, "position": "rotary"},
        {"num_layers": 1, "num_heads": 1, "num_kv_heads": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("width", [390, 1440])
def test_models_of_any_size_fit_the_map(
    settings: dict[str, Any], width: int, exported: Callable[..., dict[str, Any]], opened_model: OpenedModel
) -> None:
    """Every layer and every head is in some column; the chosen layer's columns are drawn one by one if they fit."""
    page, wrong = opened_model(exported(**settings))
    page.set_viewport_size({"width": width, "height": 900})
    page.fill("#text", "Hi, é")
    page.evaluate(DRAWN)
    names = page.locator(".map-own path").evaluate_all("all => Array.from(new Set(all.map((x) => x.dataset.column)))")
    ranges = [[[int(end) for end in part.split("–")] for part in name.split(".")] for name in names]
    heads = [
        (layer, head)
        for layers, heads in ranges
        for layer in range(layers[0], layers[-1] + 1)
        for head in range(heads[0], heads[-1] + 1)
    ]
    assert heads == [(1 + n // settings["num_heads"], 1 + n % settings["num_heads"]) for n in range(len(heads))]
    assert len(heads) == settings["num_layers"] * settings["num_heads"]
    page.locator(".map-head").first.press("Enter")
    page.evaluate(DRAWN)
    layer, head = compute(page, "() => [GPT.app.state.layer, GPT.app.state.head]")
    assert layer == 0
    assert ranges[0][1][0] <= 1 + head <= ranges[0][1][-1]
    assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
    assert wrong == []
