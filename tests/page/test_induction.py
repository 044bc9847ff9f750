"""The shipped model has a previous-token and an induction head, and the page shows what PyTorch computes of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
import torch
from playwright.sync_api import Browser, Page, expect

from page.browsing import DRAWN, ROOT, compute, faults_of
from transformer import DecoderOnlyTransformer
from transformer.interop.lesson_page import dequantised_model
from transformer.interpret.heads import Habit, score_habits, strongest
from transformer.interpret.in_context import familiar_rows, in_context_loss
from transformer.text import load_shakespeare, split_documents

HALF = 48  # tokens of a passage that is said twice


@pytest.fixture(scope="module")
def lesson(browser: Browser) -> Iterator[Page]:
    """The page with its opening text, for all tests of this file."""
    with browser.new_page(offline=True) as page:
        wrong = faults_of(page)
        page.goto((ROOT / "index.html").as_uri())
        page.evaluate(DRAWN)
        yield page
    assert wrong == []


@pytest.fixture(scope="module")
def shipped(lesson: Page) -> DecoderOnlyTransformer:
    return dequantised_model(compute(lesson, "() => GPT.exported"))


def encoded(page: Page, texts: list[str]) -> list[torch.Tensor]:
    found: list[list[int]] = compute(page, "texts => texts.map((text) => GPT.model.tokenizer.encode(text))", texts)
    return [torch.tensor(tokens) for tokens in found]


def best(habit: Habit) -> tuple[float, float]:
    """The strongest head's score and an even head's."""
    layer, head = strongest(habit)
    return float(habit.score[layer, head]), habit.even


def percentages(text: str) -> list[float]:
    return [float(number or 0.05) for number in re.findall(r"<0.1%|([\d.]+)%", text)]


@torch.no_grad()
def test_the_opening_text_shows_an_induction_head_at_work(lesson: Page, shipped: DecoderOnlyTransformer) -> None:
    tokens, layer, head = compute(lesson, "() => [GPT.app.state.tokens, GPT.app.state.layer, GPT.app.state.head]")
    row = torch.tensor([tokens])
    weights = shipped.attention_weights(row)
    assert strongest(score_habits(weights, row)["induction"]) == (layer, head)
    last = int((row[0, :-1] == row[0, -1]).nonzero()[-1])  # the same token, earlier: what followed it?
    assert int(weights[layer][0, head, -1].argmax()) == last + 1
    assert int(shipped(row)[0, -1].argmax()) == tokens[last + 1]


def test_on_held_out_plays_a_head_attends_to_the_previous_token_and_one_copies(
    lesson: Page, shipped: DecoderOnlyTransformer
) -> None:
    _, held_out = split_documents(load_shakespeare())
    scenes = encoded(lesson, [scene[1_000:2_000] for scene in held_out if len(scene) > 2_000][:32])
    rows = torch.stack([scene[: 2 * HALF] for scene in scenes])
    score, even = best(score_habits(shipped.attention_weights(rows), rows)["previous token"])
    assert (score > 0.8, even < 0.05) == (True, True)
    twice = rows[:, :HALF].repeat(1, 2)
    score, even = best(score_habits(shipped.attention_weights(twice), twice)["induction"])
    assert (score > 0.4, even < 0.03) == (True, True)
    loss = in_context_loss(shipped, twice)
    assert loss.gain > 1.5 + 3 * loss.error
    familiar = familiar_rows(torch.cat(scenes), 16, HALF)  # frequent tokens in random order
    score, even = best(score_habits(shipped.attention_weights(familiar), familiar)["induction"])
    assert (score > 0.4, even < 0.03) == (True, True)
    assert in_context_loss(shipped, familiar).gain > 3


@torch.no_grad()
def test_the_maps_show_the_scores_of_all_heads_and_a_press_chooses_one(
    lesson: Page, shipped: DecoderOnlyTransformer
) -> None:
    lesson.fill("#text", "to be or not to be")
    lesson.evaluate(DRAWN)
    tokens = torch.tensor([compute(lesson, "() => GPT.app.state.tokens")])
    habits = score_habits(shipped.attention_weights(tokens), tokens)
    for name, habit in habits.items():
        cells = lesson.locator(f"[data-habit='{name}']")
        labels = [percentages(label) for label in cells.evaluate_all("all => all.map((cell) => cell.ariaLabel)")]
        assert [label[0] for label in labels] == pytest.approx((100 * habit.score.flatten()).tolist(), abs=0.06)
        assert [label[1] for label in labels] == pytest.approx([100 * habit.even] * len(labels), abs=0.06)
        assert [int(text) for text in cells.all_inner_texts()] == pytest.approx(
            [label[0] for label in labels], abs=0.56
        )
    lesson.locator("[data-habit=induction]").nth(5).click()
    assert compute(lesson, "() => [GPT.app.state.layer, GPT.app.state.head]") == [1, 1]
    lesson.evaluate(DRAWN)
    expect(lesson.locator("[data-habit=induction]").nth(5)).to_be_focused()
    lesson.keyboard.press("ArrowRight")
    lesson.keyboard.press("Enter")
    lesson.evaluate(DRAWN)
    assert compute(lesson, "() => [GPT.app.state.layer, GPT.app.state.head]") == [1, 2]
    expect(lesson.locator("[data-habit=induction][aria-pressed=true]")).to_be_focused()


@torch.no_grad()
def test_a_passage_twice_shows_pytorchs_probabilities_with_and_without_the_head(
    lesson: Page, shipped: DecoderOnlyTransformer
) -> None:
    figure = lesson.locator("[data-diagram=twice]")
    figure.scroll_into_view_if_needed()
    figure.get_by_role("button", name="Strongest induction head").click()
    lesson.evaluate(DRAWN)
    layer, head = compute(lesson, "() => [GPT.app.state.layer, GPT.app.state.head]")
    ids = [int(number) for number in (figure.locator(".twice-grid").get_attribute("data-ids") or "").split()]
    row, n = torch.tensor([ids * 2]), len(ids)
    habit = score_habits(shipped.attention_weights(row), row)["induction"]
    assert strongest(habit) == (layer, head)
    shown = {
        name: percentages(figure.locator(f"[data-twice={name}]").inner_text())
        for name in ("first", "second", "induction")
    }
    assert shown["induction"] == pytest.approx([100 * float(habit.score[layer, head])], abs=0.06)
    whole = means(shipped, row, n)
    assert [*shown["first"], *shown["second"]] == pytest.approx(whole, abs=0.06)
    assert whole[1] > whole[0] + 20

    figure.get_by_label("Switch this head off").check()
    width = shipped.config.head_dim
    hook = shipped.layers[layer].attention.out.register_forward_pre_hook(
        lambda _, inputs: (inputs[0].index_fill(-1, torch.arange(head * width, (head + 1) * width), 0),)
    )
    without = means(shipped, row, n)
    hook.remove()
    shown = {name: percentages(figure.locator(f"[data-twice={name}]").inner_text()) for name in ("first", "second")}
    assert [*shown["first"], *shown["second"]] == pytest.approx(without, abs=0.06)
    assert without[1] < whole[1]
    figure.get_by_label("Switch this head off").uncheck()

    tokens = figure.get_by_role("option")
    tokens.nth(2).click()
    lesson.keyboard.press("ArrowRight")
    expect(tokens.nth(3)).to_be_focused()
    weight = percentages(figure.locator("[data-twice=weight]").inner_text())
    expected = float(shipped.attention_weights(row)[layer][0, head, n + 3, 4])
    assert weight == pytest.approx([100 * expected], abs=0.06)
    figure.get_by_text("Your text").click()
    lesson.fill("#text", "one two one")
    lesson.evaluate(DRAWN)
    assert tokens.count() == len(compute(lesson, "() => GPT.app.state.tokens"))


def means(model: DecoderOnlyTransformer, row: torch.Tensor, n: int) -> list[float]:
    """The mean probability of the right token in each copy, in percent; without the first token of either."""
    right = model(row)[0, :-1].softmax(-1).gather(1, row[0, 1:, None])[:, 0]  # of the tokens at 1, 2, ...
    return [100 * float(right[: n - 1].mean()), 100 * float(right[n:].mean())]


@pytest.mark.slow
def test_exercises_are_done_when_the_reader_has_done_them(lesson: Page) -> None:
    lesson.reload()  # other tests may have done some
    lesson.evaluate(DRAWN)
    lesson.fill("#text", "the cat and the dog and the cat and the")
    lesson.evaluate(DRAWN)

    def done() -> list[str]:
        found: list[str] = compute(
            lesson, "() => Array.from(document.querySelectorAll('.exercise.is-done'), (one) => one.dataset.exercise)"
        )
        return found

    def choose(habit: str, which: Callable[[list[float]], float]) -> None:
        cells = lesson.locator(f"[data-habit='{habit}']")
        scores = [percentages(label)[0] for label in cells.evaluate_all("all => all.map((cell) => cell.ariaLabel)")]
        cells.nth(scores.index(which(scores))).click()
        lesson.evaluate(DRAWN)

    choose("previous token", min)
    before = set(done())
    assert "one-back" not in before
    choose("previous token", max)
    assert set(done()) - before == {"one-back"}
    words = lesson.locator("[data-exercise=one-back] .exercise-words").inner_text()
    assert "clearly more" in words
    choose("induction", max)
    assert "induction" not in done()
    words = lesson.locator("[data-exercise=induction] .exercise-words")
    expect(words).to_contain_text("clearly more. Now write a text in which no token comes up twice.")
    lesson.fill("#text", "ten nine seven")
    lesson.evaluate(DRAWN)
    assert {"one-back", "induction", "at-the-first"} <= set(done())  # what is done stays done
    expect(words).to_contain_text("Nothing to copy.")
    weight = compute(
        lesson,
        """() => {
          const { trace, layer, head } = GPT.app.state;
          const row = (head * trace.T + trace.T - 1) * trace.T;
          return Math.max(...trace.layers[layer].weights.slice(row, row + trace.T));
        }""",
    )
    assert percentages(words.inner_text()) == pytest.approx([100 * weight], abs=0.06)
    assert "sure" not in done()
    lesson.fill("#text", "to be or not to be. " * 4 + "to be or not")
    lesson.evaluate(DRAWN)
    assert lesson.evaluate("() => Math.max(...GPT.app.state.next(GPT.app.state.tokens.length - 1))") > 0.9
    assert "sure" in done()
    assert lesson.locator("[data-exercise=sure] [role=status]").inner_text() == "✓ Done."


@torch.no_grad()
def test_copying_ends_when_the_previous_token_head_is_switched_off(lesson: Page) -> None:
    figure = lesson.locator("[data-diagram=twice]")
    figure.get_by_text("Nonsense").click()
    figure.get_by_role("button", name="Strongest induction head").click()
    lesson.evaluate(DRAWN)

    def second_time() -> float:
        return percentages(figure.locator("[data-twice=second]").inner_text())[0]

    whole = second_time()
    assert whole > 50 > 5 * percentages(figure.locator("[data-twice=first]").inner_text())[0]
    figure.get_by_label("Switch this head off").check()
    assert second_time() < whole / 2
    lesson.evaluate("""() => {
      const { trace, tokens } = GPT.app.state;
      const { best } = GPT.headHabits(trace, tokens).find(({ name }) => name === "previous token");
      GPT.app.set({ layer: best.layer, head: best.head });
    }""")
    lesson.evaluate(DRAWN)
    assert second_time() < whole / 5
    figure.get_by_label("Switch this head off").uncheck()
    assert second_time() == whole
