"""Terms light up together in text, formula, picture and code; a matrix times a vector shows PyTorch's numbers."""

from __future__ import annotations

from html import unescape

import pytest
import torch
from playwright.sync_api import Page, expect

from page.browsing import DRAWN, ROOT, compute
from transformer.interop.lesson_page import dequantised_model

PLACES = """(term) => Object.fromEntries(["dfn", ".formula", ".diagram", "pre"].map((place) => {
  const found = Array.from(document.querySelectorAll(`${place} [data-term=${term}], ${place}[data-term=${term}]`));
  const isLit = (element) => getComputedStyle(element).boxShadow !== "none";
  return [place, found.length > 0 && found.every(isLit)];
}))"""
"""Whether all places of a term are lit: in definitions, formulas, pictures and code."""


def lit(page: Page) -> set[str]:
    """The terms that are lit everywhere; a term may be lit everywhere or nowhere."""
    states = {term: set(page.evaluate(PLACES, term).values()) for term in ("query", "key", "value")}
    assert all(len(state) == 1 for state in states.values()), states
    return {term for term, state in states.items() if state == {True}}


def test_pointing_at_a_term_or_focusing_it_lights_text_formula_picture_and_code(lesson: Page) -> None:
    assert lit(lesson) == set()
    for place in [
        "dfn[data-term=query]",
        ".formula [data-term=query]",
        "pre [data-term=query]",
        ".qkv [data-term=query]",
    ]:
        lesson.locator(place).first.hover()
        assert lit(lesson) == {"query"}, place
        lesson.locator("#attention h2").hover()
        assert lit(lesson) == set(), place
    button = lesson.get_by_role("button", name="key", exact=True)
    button.focus()
    assert lit(lesson) == {"key"}
    lesson.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "true")
    lesson.locator("#text").focus()
    assert lit(lesson) == {"key"}
    lesson.locator("dfn[data-term=value] button").click()
    assert lit(lesson) == {"value"}
    lesson.keyboard.press("Escape")
    lesson.locator("#attention h2").hover()
    lesson.locator("#text").focus()
    assert lit(lesson) == set()
    page = unescape((ROOT / "index.html").read_text(encoding="utf-8"))
    codes = lesson.locator("[data-terms] pre code").all()
    assert len(codes) >= 5
    for code in codes:  # coloured variables do not change the code
        assert (code.text_content() or "missing") in page
        assert code.locator("[data-term]").count()


@pytest.mark.slow
@torch.no_grad()
def test_a_matrix_times_a_vector_is_shown_with_pytorchs_numbers(lesson: Page) -> None:
    exported, tokens, layer, head = compute(
        lesson, "() => [GPT.exported, GPT.app.state.tokens, GPT.app.state.layer, GPT.app.state.head]"
    )
    model = dequantised_model(exported)
    context = model.context(torch.tensor([tokens]))
    x = model.embeddings(torch.tensor([tokens]), context.positions)
    for earlier in model.layers[:layer]:
        x = earlier(x, context)
    vector = model.layers[layer].attention_norm(x)[0, -1]
    made = model.layers[layer].attention.qkv(vector).view(3, -1, model.config.head_dim)[:, head]  # (3, D)
    figure = lesson.locator("[data-diagram=project]")

    def numbers(selector: str) -> list[float]:
        return [float(text.replace("−", "-")) for text in figure.locator(selector).all_inner_texts()]

    for term, expected in zip(("query", "key", "value"), made, strict=True):
        figure.get_by_role("radio", name=term).check(force=True)
        lesson.evaluate(DRAWN)
        figure.get_by_role("slider").press("End")
        index = int((figure.locator("caption").inner_text()).split()[1]) - 1
        assert numbers("[data-result]")[-1] == pytest.approx(float(expected[index]), abs=0.006)
        assert numbers(".product-result .numbers") == pytest.approx([float(expected[index])], abs=0.006)
        terms = numbers("tr:not(.product-result) .numbers")
        assert sum(terms) == pytest.approx(float(expected[index]), abs=0.006 * len(terms))
    figure.get_by_role("slider").press("Home")
    assert figure.locator("[data-result]").all_inner_texts() == ["?"] * 4
    for _ in range(2):
        figure.get_by_role("button", name="Next").click()
    columns = numbers("[data-x]")
    assert figure.locator("[data-x].is-now").first.inner_text() == figure.locator("[data-x]").nth(1).inner_text()
    row = numbers("[data-at^='0 ']")
    shown = numbers(".product-result .numbers")[0]
    assert shown == pytest.approx(row[0] * columns[0] + row[1] * columns[1], abs=0.04)
