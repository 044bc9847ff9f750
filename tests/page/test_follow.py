"""Follow one number: each stop shows the numbers that PyTorch computes, and the reader steps through the stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect

from page.browsing import DRAWN, OTHER_SETTINGS, compute, only_in_chromium
from transformer.activations import run_with_cache
from transformer.interop.lesson_page import dequantised_model

STOPS = ".follow-stop"
HERE = f"{STOPS}[aria-current]"
CHOSEN = """() => {
  const c = Number(document.querySelector(".follow-choice input").value) - 1;
  const { t, h, kv, d, e, s, u, top } = GPT.follow.story(GPT.model, GPT.app.state, c);
  return { c, t, h, kv, d, e, s, u, top };
}"""
"""Which numbers the tour shows, counted from 0."""
SHOWN = """() => Object.fromEntries(Array.from(document.querySelectorAll(".follow-stage [data-number]"),
  (element) => [element.dataset.number, element.textContent]))"""
"""The numbers of the current stop, by name."""
SWIPE = """([x, y]) => {
  const at = (kind, clientX, clientY) => document.querySelector(".follow-stage").dispatchEvent(
    new PointerEvent(kind, { bubbles: true, pointerType: "touch", clientX, clientY }));
  at("pointerdown", 200, 200);
  at("pointerup", 200 + x, 200 + y);
}"""
"""A finger moves by (x, y) over the picture."""


def figure(text: str) -> float:
    number = text.replace("−", "-").replace(",", "").replace("e", "E")
    return float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)


def all_stops(page: Page) -> dict[str, float]:
    """The numbers of all stops, stepped through with the button."""
    page.locator(STOPS).first.click()
    page.evaluate(DRAWN)  # ends the movement
    found = page.evaluate(SHOWN)
    for _ in range(page.locator(STOPS).count() - 1):
        page.get_by_role("button", name="Next →").click()
        page.evaluate(DRAWN)
        found |= page.evaluate(SHOWN)
    expect(page.get_by_role("button", name="Next →")).to_be_disabled()
    found["without"] = page.locator(".follow-without").inner_text()
    return {name: figure(text) for name, text in found.items() if name != "chance.token"}


@torch.no_grad()
def expected(page: Page) -> dict[str, float]:
    """The totals of all stops as PyTorch computes them."""
    exported, tokens = compute(page, "() => [GPT.exported, GPT.app.state.tokens]")
    model = dequantised_model(exported)
    logits, found = run_with_cache(model, torch.tensor([tokens]))
    at = compute(page, CHOSEN)
    c, t, h, kv, d, e, s, u = (at[name] for name in ("c", "t", "h", "kv", "d", "e", "s", "u"))
    inside = {name.removeprefix("blocks.0."): value[0] for name, value in found.items() if name.startswith("blocks.0.")}
    block, D = model.layers[0], model.config.head_dim
    query = block.attention.qkv(inside["attention_norm"][t])[h * D + d]  # before a rotation
    dot = inside["attention.queries"][h, t] @ inside["attention.keys"][kv, s]
    parts = inside["attention.heads"][:, t] * block.attention.out.weight[c].unflatten(0, (-1, D))  # (H, D)
    hidden, down = inside["feedforward.hidden"][t], block.feedforward.down.weight[c]
    assert u == int((hidden * down).abs().argmax())
    assert h == int(parts.sum(-1).abs().argmax())
    assert s == int(inside["attention.weights"][h, t, : t + 1].argmax())
    winner = int(logits[0, t].argmax())
    probs = logits[0, t].softmax(-1)
    return {
        "token.id": tokens[t],
        f"row.{c}": float(model.embeddings.token.weight[tokens[t], c]),
        f"position.{c}": float(found["embeddings"][0, t, c]),
        f"norm.{c}": float(inside["attention_norm"][t, c]),
        "query.total": float(query),
        "dot.score": float(dot / D**0.5),
        f"softmax.score.{s}": float(inside["attention.scores"][h, t, s]),
        f"softmax.weight.{s}": float(inside["attention.weights"][h, t, s]),
        f"values.value.{s}": float(inside["attention.values"][kv, s, e]),
        "values.total": float(inside["attention.heads"][h, t, e]),
        "head.total": float(parts[h].sum()),
        "heads.total": float(inside["attention.output"][t, c]),
        f"add.middle.{c}": float(inside["residual_mid"][t, c]),
        f"up.x.{c}": float(inside["feedforward_norm"][t, c]),
        "up.hidden": float(hidden[u]),
        "down.total": float(inside["feedforward.output"][t, c]),
        "down.output": float(inside["residual_after"][t, c]),
        f"blocks.{2 * model.config.num_layers}": float(
            found[f"blocks.{model.config.num_layers - 1}.residual_after"][0, t, c]
        ),
        f"logit.norm.{c}": float(found["final_norm"][0, t, c]),
        "logit.total": float(logits[0, t, winner]),
        f"chance.prob.{winner}": float(probs[winner]),
        "without": float(
            (found["final_norm"][0, t].index_fill(0, torch.tensor([c]), 0) @ model.head.weight.T).softmax(-1)[winner]
        ),
        "chance.prob.rest": 1 - float(probs.topk(len(at["top"])).values.sum()),
    }


def check_sums(shown: dict[str, float], stop: str) -> None:
    """The written products and the cell of the others add up to the written sum, bias included."""
    terms = [value for name, value in shown.items() if name.startswith(f"{stop}.term.")]
    assert sum(terms) + shown.get(f"{stop}.bias", 0) == pytest.approx(shown[f"{stop}.total"], abs=1e-6)
    for name in (name for name in shown if name.startswith(f"{stop}.term.") and not name.endswith(".rest")):
        column = name.rsplit(".", 1)[1]
        first, second = (
            value for other, value in shown.items() if other.endswith(f".{column}") and is_factor(other, stop)
        )
        assert shown[name] == pytest.approx(first * second, abs=0.002 + 0.001 * (abs(first) + abs(second)))


def is_factor(name: str, stop: str) -> bool:
    return name.split(".")[0] == stop and name.split(".")[1] not in ("term", "total") and not name.startswith("logit.x")


@pytest.mark.slow
def test_every_stop_shows_pytorchs_numbers(lesson: Page) -> None:
    for token in (8, 4):
        lesson.locator("#strip .token").nth(token).click()
        lesson.evaluate(DRAWN)
        shown, right = all_stops(lesson), expected(lesson)
        assert {name: shown[name] for name in right} == {
            name: pytest.approx(value, abs=0.00051) for name, value in right.items()
        }
        for stop in ("query", "dot", "head", "up", "down", "logit"):
            check_sums(shown, stop)


@pytest.mark.slow
def test_the_tour_is_stepped_by_buttons_keys_and_swipes_and_plays_by_itself(lesson: Page) -> None:
    title, here = lesson.locator(".follow-title"), lesson.locator(HERE)
    lesson.locator(STOPS).nth(3).click()
    expect(title).to_have_text("4. The layer norm")
    lesson.keyboard.press("ArrowRight")
    expect(here).to_be_focused()
    expect(title).to_have_text("5. A matrix times the vector")
    expect(lesson.locator(".follow [aria-live]")).to_contain_text("Stop 5 of 15. A matrix times the vector. Each row")
    expect(lesson.locator(".follow-map .is-here")).to_have_class("follow-map-box is-query is-here")
    lesson.keyboard.press("ArrowLeft")
    lesson.get_by_role("button", name="← Back").click()
    expect(here).to_contain_text("position")
    lesson.evaluate(SWIPE, [-90, 0])
    expect(here).to_contain_text("norm")
    lesson.evaluate(SWIPE, [90, 10])
    expect(here).to_contain_text("position")
    lesson.evaluate(SWIPE, [-60, 300])  # scrolling is not a swipe
    expect(here).to_contain_text("position")
    before = figure(here.locator("b").inner_text())
    field = lesson.locator(".follow-choice input")
    number = int(field.input_value())
    field.press("ArrowUp")
    after = figure(here.locator("b").inner_text())
    assert after == figure(lesson.evaluate(SHOWN)[f"position.{number}"]) != before  # counted from 0
    lesson.locator(f".follow-stage [data-column='{number - 2}']").first.click()
    assert field.input_value() == str(number - 1)

    lesson.locator(".opening [data-follow]").click()
    expect(here).to_contain_text("token")
    expect(lesson.locator(".follow")).to_be_focused()
    expect(here).to_contain_text("row", timeout=20_000)  # it goes on by itself
    lesson.locator(".follow-buttons .is-play").click()
    expect(lesson.locator(".follow-buttons .is-play")).to_have_text("▶ Play")


@pytest.mark.slow
@only_in_chromium
def test_with_reduced_motion_a_stop_is_shown_as_it_ends(lesson: Page) -> None:
    lesson.emulate_media(reduced_motion="reduce")
    lesson.locator(STOPS).nth(4).click()
    expect(lesson.locator(".follow-buttons .is-play")).to_be_hidden()
    assert lesson.locator("[data-number='query.total']").evaluate("e => e.parentElement.getAttribute('opacity')") == "1"


@pytest.mark.slow
@pytest.mark.parametrize("settings", OTHER_SETTINGS, ids=str)
@pytest.mark.parametrize("width", [360, 1440])
def test_other_models_can_be_followed(
    settings: dict[str, Any],
    width: int,
    exported: Callable[..., dict[str, Any]],
    opened_model: Callable[[dict[str, Any]], tuple[Page, list[str]]],
) -> None:
    page, wrong = opened_model(exported(**settings))
    page.set_viewport_size({"width": width, "height": 800})
    for text in ("", "é", "To be or not to be, that is"):
        page.fill("#text", text)
        page.evaluate(DRAWN)
        shown, right = all_stops(page), expected(page)
        assert {name: shown[name] for name in right if name in shown} == {
            name: pytest.approx(value, abs=0.00051) for name, value in right.items() if name in shown
        }
        assert len(right.keys() - shown.keys()) <= 1  # the rest of the probabilities is left out of a small vocabulary
        assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
        inside = page.locator("[data-diagram=follow]").text_content() or ""
        assert "NaN" not in inside
        assert "undefined" not in inside
    assert wrong == []
