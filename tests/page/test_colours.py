"""The colours of queries, keys, values and the stream: legible as text, and distinct for colour-blind readers too."""

from __future__ import annotations

import re
from itertools import combinations

import pytest
import torch
from playwright.sync_api import Browser, Page, expect

from page.browsing import DRAWN, ROOT, compute, only_in_chromium

STYLE = (ROOT / "page" / "style.css").read_text(encoding="utf-8")
TERMS = ["query", "key", "value", "stream"]
LIT = int(re.findall(r"var\(--lit\) (\d+)%, transparent", STYLE)[0]) / 100
SIMULATED = {
    "full colour vision": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    "no red cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no blue cones": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
"""Machado, Oliveira and Fernandes (2009), severity 1: matrices for linear RGB."""


def colours(scheme: str) -> dict[str, torch.Tensor]:
    """The colours of the style sheet as linear RGB (3,); a dark page overrides some of them."""
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    found = dict(re.findall(r"--([\w-]+): #(\w{6});", light))
    if scheme == "dark":
        found |= dict(re.findall(r"--([\w-]+): #(\w{6});", dark))
    return {name: linear(torch.tensor(list(bytes.fromhex(code))) / 255) for name, code in found.items()}


def linear(rgb: torch.Tensor) -> torch.Tensor:
    return torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def mixed(under: torch.Tensor, over: torch.Tensor, part: float) -> torch.Tensor:
    """color-mix(in srgb): mixed as codes, not as light."""
    one, other = (torch.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055) for rgb in (under, over))
    return linear(one + part * (other - one))


def contrast(one: torch.Tensor, other: torch.Tensor) -> float:
    """The contrast of WCAG 2, from 1 to 21."""
    luminance = torch.tensor([0.2126, 0.7152, 0.0722])
    low, high = sorted([float(one @ luminance), float(other @ luminance)])
    return (high + 0.05) / (low + 0.05)


def oklab(rgb: torch.Tensor) -> torch.Tensor:
    """Björn Ottosson's OKLab: equal distances look about equally different."""
    cones = torch.tensor(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    axes = torch.tensor(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return axes @ (cones @ rgb).clamp(min=0) ** (1 / 3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colours_of_terms_are_legible_as_text_and_under_text(scheme: str) -> None:
    found = colours(scheme)
    for term in [*TERMS, "minus"]:
        for under in ["paper", "panel", "sunk", "on-accent"]:
            assert contrast(found[term], found[under]) >= 4.5, (term, under)
        assert contrast(found[term], mixed(found["paper"], found[term], LIT)) >= 4.5, term


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("vision", SIMULATED)
def test_the_colours_of_terms_differ_for_colour_blind_readers(scheme: str, vision: str) -> None:
    """0.02 is about the smallest difference that is seen side by side."""
    simulate = torch.tensor(SIMULATED[vision])
    seen = {term: oklab((simulate @ colours(scheme)[term]).clamp(0, 1)) for term in [*TERMS, "minus"]}
    for one, other in combinations(seen, 2):
        assert float((seen[one] - seen[other]).norm()) > 0.07, (one, other)


LONG = (
    "The king shall have his own again, and every man his place; for who would bear the whips and scorns of time? " * 8
)


def written(colour: str) -> torch.Tensor:
    """A computed colour, rgb(…) or color(srgb …), as linear RGB (3,)."""
    numbers = torch.tensor([float(number) for number in re.findall(r"[\d.]+", colour)[:3]])
    return linear(numbers if "srgb" in colour else numbers / 255)


@pytest.mark.slow
def test_shades_are_legible_in_a_text_of_128_tokens(lesson: Page) -> None:
    """On a scale up to 100% all cells of a long text were nearly white."""
    cut = "(text) => GPT.model.tokenizer.decode(GPT.model.tokenizer.encode(text).slice(0, 128))"
    lesson.fill("#text", compute(lesson, cut, LONG))
    lesson.evaluate(DRAWN)
    assert compute(lesson, "() => GPT.app.state.tokens.length") == 128
    heads = lesson.evaluate("""() => Array.from(document.querySelectorAll(".shaded"), (head) =>
      Array.from(head.children, (token) => [getComputedStyle(token).backgroundColor, token.title]))""")
    ink, panel = colours("light")["ink"], colours("light")["panel"]
    for head in heads:
        shades = {title: written(colour) for colour, title in head}
        weights = {title: float(title.strip("<%")) for title in shades}
        largest = shades[max(weights, key=lambda title: weights[title])]
        even = shades[min(weights, key=lambda title: abs(weights[title] - 100 / 128))]
        assert contrast(largest, panel) > 2
        assert contrast(largest, even) > 1.3
        assert contrast(largest, ink) > 4.5
    most, cells = lesson.evaluate("""() => {
      const { layer, head, token, trace: { layers, T } } = GPT.app.state;
      const weights = layers[layer].weights.subarray((head * T + token) * T, (head * T + token + 1) * T);
      const cells = Array.from(document.querySelectorAll(`[data-row="${token}"]:not(.is-masked)`));
      const opacities = cells.map((cell) => Number(cell.style.fillOpacity));
      return [Math.max(...weights), opacities.map((opacity, i) => [weights[cells[i].dataset.column], opacity])];
    }""")
    assert len(cells) > 10
    assert [opacity for _, opacity in cells] == pytest.approx(
        [(weight / most) ** 0.5 for weight, _ in cells], abs=0.001
    )
    assert f"{100 * most:.1f}%" in lesson.locator("[data-diagram=attention] .scale").inner_text()
    pixels = lesson.evaluate("""() => {
      const canvas = Array.from(document.querySelectorAll(".cache-row canvas")).at(-1);
      const { data } = canvas.getContext("2d").getImageData(0, canvas.height - 1, canvas.width, 1);
      return Array.from({ length: canvas.width }, (_, i) => Array.from(data.slice(4 * i, 4 * i + 3)));
    }""")
    accent = re.search(r"--accent: #(\w{6})", STYLE)
    assert accent is not None
    assert list(bytes.fromhex(accent[1])) in pixels


@pytest.mark.slow
@only_in_chromium
def test_a_tap_on_a_phone_shows_the_computation_below_the_matrix(browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 727}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto((ROOT / "index.html").as_uri())
    page.evaluate(DRAWN)
    page.locator("[data-diagram=attention] .matrix svg").scroll_into_view_if_needed()
    page.locator("[data-row='5'][data-column='2']").tap()
    page.evaluate(DRAWN)
    answer = page.locator("[data-diagram=attention] .answer")
    expect(answer).to_be_in_viewport(ratio=0.99)
    weight = compute(
        page,
        """() => {
      const { layer, head, trace } = GPT.app.state;
      return trace.layers[layer].weights[(head * trace.T + 5) * trace.T + 2];
    }""",
    )
    assert f"{100 * weight:.1f}%" in answer.inner_text()
    assert "Dot product of query and key" in answer.inner_text()
    page.locator("dfn[data-term=key] button").tap()
    expect(page.locator("html")).to_have_attribute("data-lit", "key")
    captions = " ".join(page.locator("figcaption").all_inner_texts())
    assert not re.search(r"\b(hover|move over)\b", captions, re.IGNORECASE)
    context.close()
