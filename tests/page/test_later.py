"""The chapter "From this to ChatGPT": rounding as in PyTorch, consistent public figures, controls by keyboard."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from playwright.sync_api import Page

from page.browsing import DRAWN, ROOT, compute
from transformer.interop.lesson_page import dequantised_model

TOKENS = [82, 79, 256, 0, 82, 79, 10]
DONE = "() => GPT.jobs.done()"
ROUNDED = """([exported, tokens, bits]) => {
  const model = GPT.load(exported);
  const trace = GPT.rounding.quantised(model, bits).run(tokens);
  return { logits: tokens.map((_, t) => Array.from(trace.logits(t))), bytes: GPT.rounding.bytes(model, bits) };
}"""


@pytest.fixture(scope="module")
def rounding(engine: Page) -> Page:
    for name in ("apart/ablation", "later/rounding"):
        engine.add_script_tag(path=ROOT / "page" / f"{name}.js")
    return engine


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("settings", [{}, {"tie_embeddings": False, "position": "rotary", "norm": "rmsnorm"}], ids=str)
@torch.no_grad()
def test_rounded_matrices_give_the_logits_of_pytorch_with_the_same_rounding(
    bits: int, settings: dict[str, Any], exported: Callable[..., dict[str, Any]], rounding: Page
) -> None:
    made = exported(**settings)
    found = compute(rounding, ROUNDED, [made, TOKENS, bits])
    model = dequantised_model(made)
    size = 0.0
    for weight in model.parameters():
        if weight.ndim == 2:
            scale = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
            weight.copy_((weight / scale).round() * scale)
        size += weight.numel() * bits / 8 + 4 * len(weight) if weight.ndim == 2 else 4 * weight.numel()
    torch.testing.assert_close(torch.tensor(found["logits"]), model(torch.tensor([TOKENS]))[0], rtol=0, atol=1e-4)
    assert found["bytes"] == size


def test_public_figures_fit_together(shared_lesson: Page) -> None:
    known = {model["name"]: model for model in compute(shared_lesson, "() => GPT.known")}
    for model in known.values():
        if model["kvHeads"]:
            assert model["heads"] * model["headWidth"] == model["width"], model["name"]
            assert model["heads"] % model["kvHeads"] == 0, model["name"]
    for name in ("GPT-2 (small)", "GPT-3"):
        model = known[name]
        block = 4 * model["width"] ** 2 + 2 * model["width"] * model["hidden"]
        tables = (model["vocabulary"] + model["context"]) * model["width"]
        assert model["layers"] * block + tables == pytest.approx(model["parameters"], rel=0.01)
    for name in ("Llama 3 8B", "Llama 3 405B"):
        model = known[name]
        attention = 2 * model["width"] ** 2 + 2 * model["width"] * model["kvHeads"] * model["headWidth"]
        block = attention + 3 * model["width"] * model["hidden"]
        tables = 2 * model["vocabulary"] * model["width"]  # not tied
        assert model["layers"] * block + tables == pytest.approx(model["parameters"], rel=0.01)
    llama, deepseek = known["Llama 3 405B"], known["DeepSeek-V3"]
    cache = llama["layers"] * 2 * llama["kvHeads"] * llama["headWidth"] * 2
    latent = deepseek["layers"] * deepseek["latent"] * 2
    text = re.sub(r"\s+", " ", shared_lesson.inner_text("#later"))
    assert f"That is {latent / 1e3:.0f} kB for each token" in text
    assert f"the {cache / 1e3:.0f} kB of Llama 3 405B" in text
    assert latent * 7 < cache
    assert f"one token takes {cache / 1e3:.1f} kB" in text  # the diagram of the cache


def test_every_control_of_the_chapter_follows_the_keyboard(shared_lesson: Page) -> None:
    shared_lesson.fill("#text", "The king")
    shared_lesson.evaluate(DRAWN)
    sliders = shared_lesson.locator("#later input[type=range]").all()
    assert len(sliders) == 10
    for slider in sliders:
        figure = slider.locator("xpath=ancestor::figure")
        before, spoken = figure.inner_html(), slider.get_attribute("aria-valuetext")
        slider.focus()
        shared_lesson.keyboard.press("ArrowLeft")
        shared_lesson.evaluate(DONE)
        assert slider.get_attribute("aria-valuetext") != spoken
        assert figure.inner_html() != before
    for name in ("rotation", "memory", "preference"):
        figure = shared_lesson.locator(f"[data-diagram={name}]")
        before = figure.inner_html()
        figure.locator("input:checked").focus()
        shared_lesson.keyboard.press("ArrowLeft")
        assert figure.inner_html() != before, name


@torch.no_grad()
def test_fewer_bits_show_the_loss_and_the_bars_that_pytorch_computes(shared_lesson: Page) -> None:
    shared_lesson.fill("#text", "My lord, the king is dead")
    shared_lesson.evaluate(DRAWN)
    figure = shared_lesson.locator("[data-diagram=bits]")
    figure.locator("input").focus()
    shared_lesson.keyboard.press("Home")
    shared_lesson.keyboard.press("ArrowRight")
    shared_lesson.evaluate(DONE)
    tokens, exported = compute(shared_lesson, "() => [GPT.app.state.tokens, GPT.exported]")
    model, losses = dequantised_model(exported), []
    for _ in range(2):
        log_probs = model(torch.tensor([tokens]))[0].log_softmax(-1)
        losses.append(float(-log_probs[:-1].gather(1, torch.tensor(tokens)[1:, None]).mean()))
        for weight in model.parameters():
            if weight.ndim == 2:
                scale = weight.abs().amax(1, keepdim=True) / 3  # 3 bits
                weight.copy_((weight / scale).round() * scale)
    row = figure.locator("tbody tr").nth(1).locator("td").all_inner_texts()
    assert [float(text) for text in row] == pytest.approx(losses, abs=0.002)
    best = log_probs.exp()[-1].max()
    shares = re.findall(r"→ <?([\d.]+)%", figure.locator(".compared-rows").inner_text())
    assert max(float(share) for share in shares) == pytest.approx(100 * float(best), abs=0.06)


def test_the_distance_alone_decides_the_dot_product_of_rotated_vectors(shared_lesson: Page) -> None:
    figure = shared_lesson.locator("[data-diagram=rotation]")
    figure.get_by_label("on", exact=True).check(force=True)
    position, distance = figure.locator("input[type=range]").all()
    shown = [figure.locator("strong").last.inner_text()]
    for slider in (position, distance):
        slider.focus()
        shared_lesson.keyboard.press("ArrowRight")
        shown.append(figure.locator("strong").last.inner_text())
    assert shown[0] == shown[1] != shown[2]
