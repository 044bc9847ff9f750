"""The page that `main.py interpret` writes: it needs no network, and pointer and keyboard choose head and token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from page.browsing import compute
from transformer import DecoderOnlyTransformer
from transformer.cli.interpret.command import page
from transformer.interpret.heads import head_habits
from transformer.interpret.question import Question
from transformer.interpret.report import chosen_head, habits_report, prompt_report
from transformer.text import load_tokenizer

Opened = Callable[[Path], tuple[Page, list[str]]]
PROMPT = list("<b>Now é:\nnow".encode())


@pytest.fixture(scope="package")
def model(tiny_model: Callable[..., DecoderOnlyTransformer]) -> DecoderOnlyTransformer:
    return tiny_model(vocab_size=257, max_seq_len=16)


@pytest.fixture
def inside(opened: Opened, model: DecoderOnlyTransformer, tmp_path: Path) -> Iterator[Page]:
    """The page of a report about a tiny model; an error in it or a request fails the test."""
    tokenizer = load_tokenizer("byte")
    habits = head_habits(model, torch.tensor([PROMPT, PROMPT[::-1]]))
    question = Question(PROMPT, head=(1, 2))
    report = {
        "model": "<i>tiny</i>", "about": ["a fact"], "layers": 2, "heads": 4, "chosen": chosen_head(question, habits),
        **prompt_report(model, tokenizer, question), "habits": habits_report(habits, "Measured here."),
    }  # fmt: skip
    path = tmp_path / "inside.html"
    path.write_text(page(report), encoding="utf-8")
    shown, wrong = opened(path)
    yield shown
    assert wrong == []


def readout(inside: Page) -> str:
    return inside.locator("[data-picture=attention] .two > div:last-child > .readout").inner_text()


def test_the_arrow_keys_choose_a_head_in_every_picture(inside: Page) -> None:
    chosen = "[data-picture={}] .head-cell.is-chosen >> nth=0"
    inside.locator(chosen.format("attention")).focus()
    for key in ("ArrowUp", "ArrowRight", "ArrowRight"):  # the last one has no head to go to
        inside.keyboard.press(key)
    assert compute(inside, "() => [GPT.inside.state.layer, GPT.inside.state.head]") == [0, 3]
    expect(inside.locator("[data-picture=attention] h4")).to_have_text("Head 0.3")
    for name in ("attention", "habits"):
        expect(inside.locator(chosen.format(name))).to_have_attribute("tabindex", "0")
        assert (inside.locator(chosen.format(name)).get_attribute("aria-label") or "").startswith("head 0.3: ")
    inside.locator("[data-picture=habits] .even button").first.click()
    assert (
        inside.locator("[data-picture=attention] h4").inner_text()
        == "Head " + inside.locator("[data-picture=habits] .even-label").first.inner_text()
    )


def test_a_token_that_is_pointed_at_or_reached_with_keys_shows_its_weights(
    inside: Page, model: DecoderOnlyTransformer
) -> None:
    weights = model.attention_weights(torch.tensor([PROMPT]))[1][0, 2]  # (T, T) of head 1.2
    tokens = inside.locator(".words .token")
    tokens.nth(5).hover()
    most = int(weights[5].argmax())
    assert f"{100 * float(weights[5, most]):.1f}%" in readout(inside)
    assert f"evenly it would be {100 / 6:.1f}%" in readout(inside)
    strength = [token.evaluate("box => box.style.getPropertyValue('--strength')") for token in tokens.all()]
    expected = [f"{100 * float(weight) ** 0.5:.0f}%" for weight in weights[5]]
    assert strength == [each if at <= 5 else "0%" for at, each in enumerate(expected)]
    inside.mouse.move(0, 0)
    tokens.last.focus()
    inside.keyboard.press("Home")
    assert "(token 0) attends to itself with 100.0%" in readout(inside)
    cell = inside.locator(".matrix [data-row='4'][data-column='2']")
    cell.click()
    assert f"(token 2) with {100 * float(weights[4, 2]):.1f}%" in readout(inside)


def test_texts_of_the_report_are_shown_as_they_are(inside: Page) -> None:
    assert inside.locator("h1").inner_text() == "Inside <i>tiny</i>"
    assert inside.locator("#prompt .token").all_inner_texts()[:4] == ["<", "b", ">", "N"]
    assert inside.locator("#prompt .token").all_inner_texts()[7:9] == ["c3", "a9"]  # é, one byte a token
    assert "undefined" not in inside.inner_text("main")
    assert "NaN" not in inside.inner_text("main")


@pytest.mark.parametrize("width", [360, 1440])
def test_it_fits_the_window(inside: Page, width: int) -> None:
    inside.set_viewport_size({"width": width, "height": 800})
    assert inside.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_inside(inside: Page, scheme: str) -> None:
    inside.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    chosen = {"runOnly": ["color-contrast"]} if scheme == "dark" else {}  # the rest is the same in both
    found = Axe().run(inside, options={"preload": False, **chosen}).response["violations"]
    wrong = [(rule["id"], rule["nodes"][0]["html"]) for rule in found if rule["impact"] in ("serious", "critical")]
    assert wrong == []
