"""A reader switches parts of the page's model off and patches it, and sees the numbers of transformer.interpret."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect

from page.browsing import DRAWN, ROOT, compute
from transformer.activations import run_with_hooks
from transformer.interop.lesson_page import dequantised_model
from transformer.interpret.ablation import ablate
from transformer.interpret.patching import logit_difference, patch_positions

TOKENS = [82, 79, 256, 0, 82, 79, 10]
OTHER = [82, 79, 256, 3, 82, 79, 11]
MODELS = [{}, {"position": "rotary", "norm": "rmsnorm", "activation": "swiglu", "num_kv_heads": 2, "bias": False}]
DONE = "() => GPT.jobs.done()"

WITHOUT = """([exported, tokens, keys, by]) => {
  const model = GPT.load(exported);
  const clean = model.run(tokens);
  const without = (off) => GPT.ablation.without(model, tokens, new Set(off), by, clean);
  return keys.map((off) => Array.from(GPT.ablation.losses(without(off))));
}"""

CELLS = """([exported, tokens, other]) => {
  const [first, ...found] = GPT.patching.cells(GPT.load(exported), { tokens, other });
  return { tokens: first.ends.tokens, cells: found.map(({ row, t, effect }) => [row, t, effect]) };
}"""


CONTRASTS = """() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = (colour) => {
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const parts = Array.from(pen.getImageData(0, 0, 1, 1).data.slice(0, 3), (c) => c / 255);
    const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return Array.from(document.querySelectorAll("[data-diagram=apart] .board button"), (button) => {
    const { color, backgroundColor } = getComputedStyle(button);
    const [dark, light] = [luminance(color), luminance(backgroundColor)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  });
}"""
"""The contrast of the number in each part with its shade."""


@pytest.fixture(scope="module")
def parts(engine: Page) -> Page:
    for name in ("ablation", "patching"):
        engine.add_script_tag(path=ROOT / "page" / "apart" / f"{name}.js")
    return engine


@pytest.mark.parametrize("settings", MODELS, ids=str)
def test_a_part_that_is_off_gives_the_losses_of_ablate(
    settings: dict[str, Any], exported: Callable[..., dict[str, Any]], parts: Page
) -> None:
    made = exported(**settings)
    model, rows = dequantised_model(made), torch.tensor([TOKENS])
    keys = ["0.head.1", "1.head.3", "0.attention", "1.feedforward"]
    names: list[tuple[str, int | None]] = [
        ("blocks.0.attention.heads", 1),
        ("blocks.1.attention.heads", 3),
        ("blocks.0.attention.output", None),
        ("blocks.1.feedforward.output", None),
    ]
    found = torch.tensor(compute(parts, WITHOUT, [made, TOKENS, [[key] for key in keys], "zero"])).double()
    expected = [ablate(model, rows, name, head=head, by="zero").ablated[0] for name, head in names]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-4)
    plain = compute(parts, WITHOUT, [made, TOKENS, [[]], "zero"])[0]
    torch.testing.assert_close(
        torch.tensor(plain).double(), ablate(model, rows, *names[2][:1]).plain[0], rtol=0, atol=1e-4
    )


@torch.no_grad()
def test_means_blocks_norms_and_several_parts_are_replaced_as_by_hooks(
    exported: Callable[..., dict[str, Any]], parts: Page
) -> None:
    made = exported()
    model, tokens = dequantised_model(made), torch.tensor([TOKENS])
    kept: dict[str, torch.Tensor] = {}

    def losses(functions: dict[str, Callable[[torch.Tensor], torch.Tensor | None]]) -> torch.Tensor:
        log_probs = run_with_hooks(model, tokens, functions)[0, :-1].log_softmax(-1)
        return -log_probs.gather(1, tokens[0, 1:, None])[:, 0]

    def mean(values: torch.Tensor) -> torch.Tensor:
        return values.mean(-2, keepdim=True).expand_as(values)

    def keep(values: torch.Tensor) -> None:
        kept["stream"] = values.clone()

    parts_of_1 = ["blocks.1.attention.output", "blocks.1.feedforward.output"]
    cases: list[tuple[list[str], str, dict[str, Callable[[torch.Tensor], torch.Tensor | None]]]] = [
        (["1.block"], "zero", dict.fromkeys(parts_of_1, torch.zeros_like)),
        (["1.norm1"], "zero", {"blocks.1.residual_before": keep, "blocks.1.attention_norm": lambda _: kept["stream"]}),
        (["0.norm2"], "zero", {"blocks.0.residual_mid": keep, "blocks.0.feedforward_norm": lambda _: kept["stream"]}),
        (["norm"], "zero", {"blocks.1.residual_after": keep, "final_norm": lambda _: kept["stream"]}),
        (["1.attention"], "mean", {"blocks.1.attention.output": mean}),
        (["0.feedforward"], "mean", {"blocks.0.feedforward.output": mean}),
    ]
    for keys, by, functions in cases:
        found = torch.tensor(compute(parts, WITHOUT, [made, TOKENS, [keys], by])[0])
        torch.testing.assert_close(found, losses(functions), rtol=0, atol=1e-4, msg=f"{keys} {by}")


@pytest.mark.parametrize("position", ["learned", "rotary", "alibi", "sinusoidal"])
@torch.no_grad()
def test_without_positions_equal_tokens_are_read_alike(
    position: str, exported: Callable[..., dict[str, Any]], parts: Page
) -> None:
    """Without positions, a token that is repeated attends to copies of itself only: its prediction stays the same."""
    found = compute(parts, WITHOUT, [exported(position=position), [82] * 6, [["positions"], []], "zero"])
    assert found[0] == pytest.approx([found[0][0]] * 5, abs=1e-5)
    assert found[1] != pytest.approx([found[1][0]] * 5, abs=1e-5) or position in ("rotary", "alibi")


@pytest.mark.parametrize("settings", MODELS, ids=str)
def test_patching_gives_the_effects_of_patch_positions(
    settings: dict[str, Any], exported: Callable[..., dict[str, Any]], parts: Page
) -> None:
    made = exported(**settings)
    found = compute(parts, CELLS, [made, TOKENS, OTHER])
    own, other = torch.tensor([TOKENS]), torch.tensor([OTHER])
    effects = patch_positions(dequantised_model(made), other, own, logit_difference(*found["tokens"]))
    shown = torch.zeros_like(effects)
    for row, t, effect in found["cells"]:
        shown[row, t] = effect
    torch.testing.assert_close(shown, effects, rtol=0, atol=2e-3)
    assert len(found["cells"]) == 3 * 4  # the first three tokens are the same


def shown_bars(page: Page, diagram: str) -> dict[str, list[float]]:
    """The percentages of each token, one for each run."""
    rows = page.locator(f"[data-diagram={diagram}] .compared-rows li").all_inner_texts()
    found = [row.split("\n") for row in rows]
    return {
        label: [float(share) for share in re.findall(r"([\d.]+)%", value)]
        for label, value in ((row[0], row[-1]) for row in found)
    }


@torch.no_grad()
def test_a_pressed_part_moves_the_bars_to_pytorchs_probabilities(shared_lesson: Page) -> None:
    shared_lesson.evaluate("GPT.app.set({ token: Infinity, key: null })")  # other tests chose another one
    figure = shared_lesson.locator("[data-diagram=apart]")
    figure.scroll_into_view_if_needed()
    tokens, exported = compute(shared_lesson, "() => [GPT.app.state.tokens, GPT.exported]")
    part = figure.locator("[data-key='1.head.2']")
    part.click()
    shared_lesson.evaluate(DONE)
    assert part.get_attribute("aria-pressed") == "false"
    functions = {"blocks.1.attention.heads": lambda heads: heads.index_fill(1, torch.tensor([2]), 0.0)}
    model = dequantised_model(exported)
    after = run_with_hooks(model, torch.tensor([tokens]), functions)[0, -1].softmax(-1)
    before = model(torch.tensor([tokens]))[0, -1].softmax(-1)
    bars = [shares for shares in shown_bars(shared_lesson, "apart").values() if len(shares) == 2]
    ids = before.topk(8).indices
    assert [shares[0] for shares in bars[:8]] == pytest.approx((100 * before[ids]).tolist(), abs=0.06)
    assert [shares[1] for shares in bars[:8]] == pytest.approx((100 * after[ids]).tolist(), abs=0.06)
    assert "head 3 of layer 2" in figure.locator(".apart-sentence").inner_text()
    figure.get_by_role("button", name="All on").click()
    assert figure.locator("[aria-pressed=false]").count() == 0


def test_parts_are_switched_by_keyboard_and_measured_by_themselves(shared_lesson: Page) -> None:
    shared_lesson.fill("#text", "Go")
    shared_lesson.evaluate(DRAWN)
    figure = shared_lesson.locator("[data-diagram=apart]")
    figure.scroll_into_view_if_needed()
    figure.locator(".board [tabindex='0']").focus()
    for key in ("ArrowUp", "ArrowUp", "ArrowDown", "ArrowRight", "ArrowDown", "Home", "Space"):
        shared_lesson.keyboard.press(key)
    assert shared_lesson.evaluate("() => document.activeElement.dataset.key") == "1.block"
    assert figure.locator("[aria-pressed=false]").count() == 1
    shared_lesson.wait_for_function("() => document.querySelector('[data-key=\"norm\"]').innerText !== ''")
    shared_lesson.evaluate(DONE)
    assert all(text for text in figure.locator(".board button").all_inner_texts())
    figure.get_by_role("button", name="The most important one off").click()
    assert figure.locator("[aria-pressed=false]").count() == 1
    figure.get_by_role("button", name="All on").click()
    shared_lesson.add_style_tag(content=".board button { transition: none !important; }")  # colours at once
    for scheme in ("light", "dark"):  # the strongest shade is one of these
        shared_lesson.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert min(compute(shared_lesson, CONTRASTS)) >= 4.5, scheme
    shared_lesson.emulate_media(color_scheme="light")


def test_a_vector_of_the_other_text_moves_the_answer(shared_lesson: Page) -> None:
    shared_lesson.fill("#text", "The king is dead.")
    shared_lesson.evaluate(DRAWN)
    figure = shared_lesson.locator("[data-diagram=patch]")
    figure.scroll_into_view_if_needed()
    suggested = shared_lesson.input_value("#other-text")
    cut = "other => [GPT.app.state.tokens, Array.from(GPT.model.tokenizer.encode(other))]"
    own, other = compute(shared_lesson, cut, suggested)
    differing = [t for t, (one, two) in enumerate(zip(own, other, strict=True)) if one != two]
    assert len(differing) == 1
    end, last, at = compute(shared_lesson, "() => GPT.model.config.num_layers"), len(own) - 1, differing[0]
    shared_lesson.wait_for_function(
        "key => document.querySelector(`[data-diagram=patch] [data-key='${key}']`).innerText !== ''", arg=f"{end}.{at}"
    )
    shared_lesson.evaluate(DONE)
    assert figure.locator(f"[data-key='0.{at}']").inner_text() == "100"  # all of the difference is in the word itself
    assert figure.locator(f"[data-key='{end}.{last}']").inner_text() == "100"  # and at the end in the last token
    assert figure.locator(f"[data-key='{end}.{at}']").inner_text() == "0"
    figure.locator(f"[data-key='0.{at}']").click()
    shared_lesson.evaluate(DONE)
    for shares in shown_bars(shared_lesson, "patch").values():
        assert shares[1] == pytest.approx(shares[2], abs=0.11)  # the patched run is the other text's
    shared_lesson.fill("#other-text", "The queen of France is dead.")
    assert "tokens" in figure.locator("[role=status]").inner_text()
    expect(figure.locator(".board")).to_be_hidden()
    figure.get_by_role("button", name="Suggest").click()
    assert shared_lesson.input_value("#other-text") == suggested


def test_the_suggested_text_differs_in_one_word_and_keeps_its_lines(shared_lesson: Page) -> None:
    for text in ("KING HENRY:\nGood morrow, my good", "The sun rises in the east", "She sells shells\n\non the shore"):
        shared_lesson.fill("#text", text)
        shared_lesson.evaluate(DRAWN)
        other = shared_lesson.input_value("#other-text")
        one, two = (re.split(r"(\w+)", each) for each in (text, other))
        assert [part for part in one if not part.isalpha()] == [part for part in two if not part.isalpha()]
        assert sum(a != b for a, b in zip(one, two, strict=True)) == 1, other
    shared_lesson.fill("#text", "1 2 3")
    shared_lesson.evaluate(DRAWN)
    assert shared_lesson.input_value("#other-text") == ""
    expect(shared_lesson.locator("[data-diagram=patch] [role=status]")).to_contain_text("No word was found")
