"""The page that `main.py interpret` writes: it needs no network, and pointer and keyboard choose head and token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect

from page.browsing import compute, only_in_chromium, serious_faults
from transformer import DecoderOnlyTransformer
from transformer.cli.interpret.command import page
from transformer.interpret.heads import head_habits
from transformer.interpret.question import Question
from transformer.interpret.report import habits_report, prompt_report
from transformer.text import load_tokenizer

Opened = Callable[[Path], tuple[Page, list[str]]]
PROMPT, VERSUS = list("<b>Now é:\nnow".encode()), list("<b>Now é:\nwas".encode())
START = 11
"""The first position at which the prompts differ."""


@pytest.fixture(scope="package")
def model(tiny_model: Callable[..., DecoderOnlyTransformer]) -> DecoderOnlyTransformer:
    return tiny_model(vocab_size=257, max_seq_len=16)


@pytest.fixture
def inside(opened: Opened, model: DecoderOnlyTransformer, tmp_path: Path) -> Iterator[Page]:
    """The page of a report about a tiny model; an error in it or a request fails the test."""
    tokenizer = load_tokenizer("byte")
    habits = head_habits(model, torch.tensor([PROMPT, PROMPT[::-1]]))
    question = Question(PROMPT, target=3, rather_than=65, versus=VERSUS, head=(1, 2))
    report = {
        "model": "<i>tiny</i>", "about": ["a fact"], "layers": 2, "heads": 4,
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
    for name in ("attention", "attribution", "patching", "habits"):
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


def shown_report(inside: Page) -> Any:
    return compute(inside, "() => GPT.report")


def figure(text: str) -> float:
    """A number as the page writes it."""
    return float(text.replace("−", "-").replace("%", "") or 0)


def test_the_lens_is_a_table_of_the_reports_tokens_with_arrow_keys(inside: Page) -> None:
    cells = shown_report(inside)["lens"]["cells"]
    table = inside.locator("[data-picture=lens] table")
    chosen = table.locator("td.is-chosen")
    chosen.focus()
    for key in ("ArrowUp", "ArrowLeft"):
        inside.keyboard.press(key)
    last = len(PROMPT) - 1
    assert chosen.evaluate("cell => ({ ...cell.dataset })") == {"row": "1", "column": str(last - 1)}
    assert compute(inside, "() => GPT.inside.state.token") == last - 1  # every picture follows
    words = inside.locator("[data-picture=lens] .readout")
    assert f" {100 * cells[1][last - 1][4]['probability']:.1f}%" in words.inner_text()
    table.locator("tbody tr").last.locator("td").last.hover()
    assert "has rank " in words.inner_text()
    strength = [
        cell.evaluate("cell => cell.style.getPropertyValue('--strength')") for cell in table.locator("td").all()
    ]
    assert strength == [f"{100 * best['probability']:.0f}%" for row in cells for best, *_ in row]


def test_bars_and_heat_maps_show_the_reports_numbers(inside: Page) -> None:
    report = shown_report(inside)
    values = inside.locator("[data-picture=attribution] .signed-value").all_inner_texts()
    assert [figure(text) for text in values] == [round(part["value"], 2) for part in report["attribution"]["parts"]]
    for index, place in enumerate(report["patching"]["places"]):
        inside.locator("[data-picture=patching] .choice label").nth(index).click()
        table = inside.locator("[data-picture=patching] table:visible")
        restored = [value for row in place["values"] for value in row[START:]]
        texts = [figure(text) for text in table.locator("td").all_inner_texts()]
        assert texts == pytest.approx([100 * value if abs(value) >= 0.05 else 0 for value in restored], abs=0.51)
    assert PROMPT[:START] == VERSUS[:START]
    assert f"The first {START} tokens are left out" in inside.locator("[data-picture=patching]").inner_text()
    rows = inside.locator("[data-picture=head] tbody tr").all()
    assert len(rows) == len(PROMPT)
    up = report["head"]["rows"][2]["up"]
    assert [figure(text) for text in rows[2].locator("td").nth(1).locator("small").all_inner_texts()] == [
        round(each["value"], 2) for each in up
    ]
    inside.locator("[data-picture=attribution] .signed button").first.click()
    name = inside.locator("[data-picture=attribution] .signed button .signed-label").first.inner_text()
    assert inside.locator("[data-picture=attention] h4").inner_text().lower() == name


def test_texts_of_the_report_are_shown_as_they_are(inside: Page) -> None:
    assert inside.locator("h1").inner_text() == "Inside <i>tiny</i>"
    assert inside.locator("#prompts p:first-of-type .token").all_inner_texts()[:4] == ["<", "b", ">", "N"]
    assert inside.locator("#prompts p:first-of-type .token").all_inner_texts()[7:9] == [
        "c3",
        "a9",
    ]  # é, one byte a token
    assert "undefined" not in inside.inner_text("main")
    assert "NaN" not in inside.inner_text("main")


@pytest.mark.parametrize("prompt", [None, [65]], ids=["habits alone", "one token"])
def test_the_smallest_reports_are_shown_without_an_error(
    opened: Opened, tiny_model: Callable[..., DecoderOnlyTransformer], tmp_path: Path, prompt: list[int] | None
) -> None:
    model = tiny_model(vocab_size=257, num_layers=1, num_heads=1)
    habits = habits_report(head_habits(model, torch.tensor([PROMPT[:5]])), "Measured here.")  # one row: no errors
    report = {"model": "m", "about": [], "layers": 1, "heads": 1, "chosen": [0, 0], "habits": habits}
    if prompt:
        report |= prompt_report(model, load_tokenizer("byte"), Question(prompt, target=3))
    path = tmp_path / "inside.html"
    path.write_text(page(report), encoding="utf-8")
    shown, wrong = opened(path)
    for word in ("undefined", "NaN", "null"):
        assert word not in shown.inner_text("main")
    pictures = shown.locator("[data-picture]").evaluate_all("found => found.map((each) => each.dataset.picture)")
    assert pictures == (["attention", "lens", "attribution", "habits"] if prompt else ["habits"])
    assert wrong == []


@pytest.mark.parametrize("width", [360, 1440])
def test_it_fits_the_window(inside: Page, width: int) -> None:
    inside.set_viewport_size({"width": width, "height": 800})
    assert inside.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.mark.slow
@only_in_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_inside(inside: Page, scheme: str) -> None:
    inside.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    assert serious_faults(inside, scheme) == []
