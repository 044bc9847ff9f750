"""The page that `main.py interpret --film` writes: it plays a run's attention, by pointer, keyboard and Play."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from page.browsing import compute, only_in_chromium, serious_faults
from transformer.cli.interpret.film import film_page
from transformer.reporting.film_log import FilmLog
from transformer.reporting.metrics_log import MetricsLog
from transformer.training.events import AttentionFrame, InsideMetrics, RunStarted, StepMetrics

Opened = Callable[[Path], tuple[Page, list[str]]]
STEPS = (0, 1, 2, 4)
TOKENS = ["<", "b", "\ufffd", "<", "b", "\ufffd"]
TRIANGLE = 21


def weights(step: int) -> str:
    """All weights of 2 layers of 2 heads are 0, except that those of head 1.0 are step / 4."""
    heads = [bytes([0] * TRIANGLE)] * 2 + [bytes([round(255 * step / 4)] * TRIANGLE), bytes([0] * TRIANGLE)]
    return base64.b64encode(b"".join(heads)).decode()


@pytest.fixture
def film(opened: Opened, tmp_path: Path) -> Iterator[Page]:
    """The page of a run whose head 1.0 becomes an induction head; an error in it or a request fails the test."""
    run = tmp_path / "<i>run"
    for log in (MetricsLog(run), FilmLog(run)):
        log(RunStarted("run", 0, 9, 9, 32, 1000, "cpu"))
        for step in STEPS:
            score = float("nan") if step == 1 else step / 4
            scores = {name: [[0.1, 0.1], [score, 0.0]] for name in ("previous token", "induction")}
            log(InsideMetrics(step, scores, {"previous token": 0.2, "induction": 0.05}, 5.5, 5.5 - step))
            log(AttentionFrame(step, TOKENS, 2, 2, weights(step)))
            log(StepMetrics(step + 1, 1, 5.5, 244.7, 1e-4, 1.25, 32, 1000.0, 0.1))
    path = tmp_path / "film.html"
    path.write_text(film_page(run), encoding="utf-8")
    shown, wrong = opened(path)
    yield shown
    assert wrong == []


def test_it_begins_with_the_last_step_and_the_head_of_the_strongest_induction(film: Page) -> None:
    assert film.locator("h1").inner_text() == "The film of <i>run"
    expect(film.locator("#attention h4")).to_have_text("Head 1.0 at step 4")
    assert "step 4 (4 of 4)" in film.locator("#controls output").inner_text()
    assert film.locator("#attention .matrix [data-row='5'][data-column='2']").get_attribute("aria-label") == (
        "□ attends to □: 100.0%"
    )
    assert "Step 4: induction 1.00 in head 1.0, 1.00 in head 1.0, evenly 0.05." in film.locator("#charts").inner_text()
    for text in ("undefined", "NaN"):
        assert text not in film.inner_text("main")


def test_the_slider_shows_another_step_in_every_picture(film: Page) -> None:
    film.locator("#controls input").focus()
    film.keyboard.press("ArrowLeft")
    expect(film.locator("#attention h4")).to_have_text("Head 1.0 at step 2")
    label = film.locator("#attention .matrix [data-row='5'][data-column='2']").get_attribute("aria-label")
    assert label == "□ attends to □: 50.2%"
    assert "Step 2: first half 5.50, second half 3.50 nats." in film.locator("#charts").inner_text()
    colour = "() => document.querySelectorAll('canvas')[2].toDataURL()"
    before = compute(film, colour)
    film.keyboard.press("Home")
    assert compute(film, colour) != before
    film.locator("#charts .chart").first.focus()
    film.keyboard.press("End")
    expect(film.locator("#attention h4")).to_have_text("Head 1.0 at step 4")


def test_the_space_bar_plays_from_the_start_to_the_end_and_pauses(film: Page) -> None:
    film.keyboard.press("Space")
    expect(film.locator("#controls button")).to_have_text("❚❚ Pause")
    film.keyboard.press("Space")
    paused = compute(film, "() => GPT.film.state.frame")
    assert paused < 3
    film.locator("#controls button").click()
    expect(film.locator("#controls output")).to_have_text("step 4 (4 of 4)")
    expect(film.locator("#controls button")).to_have_text("▶\ufe0e Play")


def test_arrow_keys_choose_a_head_and_a_token(film: Page) -> None:
    film.locator(".head-cell.is-chosen").focus()
    film.keyboard.press("ArrowUp")
    expect(film.locator("#attention h4")).to_have_text("Head 0.0 at step 4")
    film.locator("#attention .matrix [data-row='1'][data-column='0']").click()
    film.keyboard.press("ArrowDown")
    assert "(token 2) attends to < (token 0) with 0.0%" in film.locator("#attention > div > .readout").inner_text()


@pytest.mark.parametrize("width", [360, 1440])
def test_it_fits_the_window(film: Page, width: int) -> None:
    film.set_viewport_size({"width": width, "height": 800})
    assert film.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.mark.slow
@only_in_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_the_film(film: Page, scheme: str) -> None:
    film.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    assert serious_faults(film, scheme) == []
