"""The small model that learns in the page: its gradients and its steps are PyTorch's, and a person can train it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Locator, Page, expect

from page.browsing import ROOT, compute
from transformer import DecoderOnlyTransformer, ModelConfig
from transformer.config import OptimizerConfig
from transformer.interop.lesson_page import dequantised_model
from transformer.optimizer import build_optimizers
from transformer.text.corpus import load_shakespeare

BACKWARD = """([config, weights, rows, tokens, targets, rate, steps]) => {
  const network = GPT.network(config);
  for (const [name, values] of Object.entries(weights)) network.weights[name].set(values);
  const losses = [], gradients = [], norms = [];
  for (let i = 0; i <= steps; i += 1) {
    losses.push(network.loss(tokens, targets, rows));
    network.backward();
    for (const [name, values] of i ? [] : Object.entries(network.gradients)) gradients.push([name, Array.from(values)]);
    if (i < steps) norms.push(network.step(rate));
  }
  const after = Object.entries(network.weights).map(([name, values]) => [name, Array.from(values)]);
  return { losses, norms, gradients: Object.fromEntries(gradients), after: Object.fromEntries(after) };
}"""
"""The losses before each AdamW step and after the last one, the first gradients, and the weights at the end."""


@pytest.fixture(scope="module")
def small(engine: Page) -> Page:
    for name in ("operations", "network", "learner"):
        engine.add_script_tag(path=ROOT / "page" / "train" / f"{name}.js")
    return engine


def torch_model(sizes: dict[str, int]) -> DecoderOnlyTransformer:
    """The model of page/train/network.js in 64 bits, with weights that are larger than fresh ones."""
    torch.manual_seed(0)
    model = DecoderOnlyTransformer(ModelConfig(**sizes, activation="relu", dropout=0.0)).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return model


def flat(model: DecoderOnlyTransformer) -> dict[str, list[float]]:
    return {name: weight.detach().flatten().tolist() for name, weight in model.named_parameters()}


def check_against_pytorch(page: Page, sizes: dict[str, int], rows: int, length: int, steps: int) -> None:
    model = torch_model(sizes)
    rate = 0.01
    text = torch.randint(0, sizes["vocab_size"], (rows, length + 1))
    tokens, targets = text[:, :-1], text[:, 1:]
    argument = [sizes, flat(model), rows, tokens.flatten().tolist(), targets.flatten().tolist(), rate, steps]
    found = compute(page, BACKWARD, argument)
    optimizers = build_optimizers(model, OptimizerConfig(optimizer="adamw", learning_rate=rate))
    losses, norms = [], []
    for step in range(steps + 1):
        model.zero_grad()
        nats, count = model.loss(tokens, targets)
        (nats / count).backward()
        losses.append(float((nats / count).detach()))
        if step == 0:
            for name, weight in model.named_parameters():
                assert weight.grad is not None
                shown = torch.tensor(found["gradients"][name], dtype=torch.float64)
                torch.testing.assert_close(shown, weight.grad.flatten(), rtol=1e-7, atol=1e-10, msg=name)
        if step < steps:
            norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
            for optimizer in optimizers:
                optimizer.step()
    assert found["losses"] == pytest.approx(losses, rel=1e-6)
    assert found["norms"] == pytest.approx(norms, rel=1e-6)
    for name, weight in model.named_parameters():
        shown = torch.tensor(found["after"][name], dtype=torch.float64)
        torch.testing.assert_close(shown, weight.detach().flatten(), rtol=1e-6, atol=1e-8, msg=name)


def test_every_gradient_and_three_adamw_steps_equal_pytorchs(small: Page) -> None:
    sizes = compute(small, "() => GPT.learner.CONFIG")
    check_against_pytorch(small, sizes, rows=2, length=sizes["max_seq_len"], steps=3)


@settings(max_examples=8, deadline=None)
@given(
    heads=st.integers(1, 3),
    head_dim=st.integers(1, 5),
    layers=st.integers(1, 3),
    hidden=st.integers(1, 9),
    vocab=st.integers(2, 11),
    rows=st.integers(1, 3),
    length=st.integers(1, 6),
)
def test_gradients_equal_pytorchs_at_any_shape(
    small: Page, heads: int, head_dim: int, layers: int, hidden: int, vocab: int, rows: int, length: int
) -> None:
    sizes = {"vocab_size": vocab, "d_model": heads * head_dim * 2, "num_heads": heads, "num_layers": layers}
    check_against_pytorch(small, {**sizes, "d_ff": hidden, "max_seq_len": 6}, rows, length, steps=1)


def test_a_fresh_model_guesses_and_its_level_of_byte_frequencies_is_their_entropy(small: Page) -> None:
    code = """(bytes) => {
      const found = [];
      const handle = GPT.learner((answer) => found.push(answer));
      handle({ kind: "text", bytes: Uint8Array.from(bytes) });
      return found;
    }"""
    text = list(load_shakespeare()[0].encode()[:3000])
    begun, point, sample, progress = compute(small, code, text)
    frequencies = torch.bincount(torch.tensor(text[:2700]), minlength=256) / 2700
    assert begun["frequency"] == pytest.approx(float(torch.special.entr(frequencies).sum()), abs=1e-5)
    assert begun["weights"] == sum(weight.numel() for weight in torch_model(small_sizes(small)).parameters())
    assert point["heldOut"] == pytest.approx(torch.log(torch.tensor(256.0)).item(), abs=0.1)
    assert sample["isKept"]
    assert progress["step"] == 0


def small_sizes(page: Page) -> dict[str, int]:
    found: dict[str, int] = compute(page, "() => GPT.learner.CONFIG")
    return found


def diagram(page: Page, name: str) -> Locator:
    found = page.locator(f"[data-diagram={name}]")
    found.scroll_into_view_if_needed()
    return found


def figure(text: str) -> float:
    return float(text.replace("−", "-").replace(",", "").replace("%", ""))


@pytest.mark.slow
def test_a_person_trains_pauses_resets_and_is_told_that_a_text_is_too_short(lesson: Page) -> None:
    shown = diagram(lesson, "learn")
    start, pause, reset = (shown.get_by_role("button", name=name) for name in ("Start", "Pause", "Reset"))
    samples = shown.locator(".train-samples li:not(.is-open)")
    height = shown.locator(".train-samples").evaluate("list => list.offsetHeight")
    expect(samples).to_have_count(1, timeout=30_000)
    shown.get_by_label("The text to learn from").fill("To be, or not to be: " * 20)
    expect(shown.locator(".train-source .readout")).to_contain_text("420 bytes. That is too short")
    expect(start).to_be_disabled()
    shown.get_by_role("button", name="one short scene").click()
    start.click()
    expect(samples).to_have_count(2, timeout=30_000)  # 20 steps
    assert shown.locator(".train-samples").evaluate("list => list.offsetHeight") == height  # nothing below moves
    before = lesson.input_value("#text")
    lesson.locator("#text").press("End")
    lesson.keyboard.type("!")  # the page still answers
    assert lesson.input_value("#text") == f"{before}!"
    pause.click()
    expect(shown.locator(".reading")).to_contain_text("Paused at step", timeout=30_000)
    at = shown.locator("progress").evaluate("bar => bar.value")
    lesson.wait_for_timeout(200)
    assert shown.locator("progress").evaluate("bar => bar.value") == at >= 20
    expect(shown.get_by_role("button", name="Continue")).to_be_enabled()
    reset.click()
    expect(shown.locator(".reading")).to_contain_text("Press Start", timeout=30_000)
    expect(samples).to_have_count(1, timeout=30_000)
    assert shown.locator("progress").evaluate("bar => bar.value") == 0


@pytest.mark.slow
def test_the_loss_falls_below_byte_frequencies_and_a_rate_of_3_drives_it_above_guessing(lesson: Page) -> None:
    shown = diagram(lesson, "learn")
    shown.get_by_role("button", name="Start").click()
    expect(shown.locator(".train-samples li:not(.is-open) b").last).to_have_text("300", timeout=240_000)
    shown.get_by_role("button", name="Pause").click()
    level = figure(re.findall(r"occurs: ([\d.]+)", shown.locator(".chart").inner_html())[0])
    last = re.findall(
        r"Step (\d+): ([\d.]+) on the training text, ([\d.]+)", shown.locator(".readout").last.inner_text()
    )
    step, train, held_out = (float(number) for number in last[0])
    assert 300 <= step < 360
    assert max(train, held_out) < level - 0.3
    shown.get_by_role("button", name="Reset").click()
    shown.get_by_label("Learning rate").press("End")
    shown.get_by_role("button", name="Start").click()
    expect(shown.locator(".reading")).to_contain_text("too large", timeout=120_000)
    expect(shown.locator(".chart-above text")).to_have_text("above 12, off this chart", timeout=120_000)


@pytest.mark.slow
def test_one_weight_moved_by_hand_has_the_slope_of_backpropagation_and_of_pytorch(lesson: Page) -> None:
    shown = diagram(lesson, "wiggle")
    values = shown.locator(".steps dd")
    expect(values).to_have_count(2, timeout=30_000)
    wiggled, slope = (figure(text) for text in values.all_inner_texts())
    assert wiggled == pytest.approx(slope, abs=2e-6)
    found = json.loads(
        lesson.evaluate("""() => new Promise((done) => GPT.trained.weights(({ weights }) => {
          const network = GPT.network(GPT.learner.CONFIG);
          network.all.set(weights);
          const numbers = (_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
          done(JSON.stringify([network.weights, GPT.trained.bytes().subarray(0, 49)], numbers));
        }))""")
    )
    model = torch_model(small_sizes(lesson))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.tensor(found[0][name], dtype=torch.float64).view_as(weight))
    row = torch.tensor([found[1]])
    nats, count = model.loss(row[:, :-1], row[:, 1:])
    (nats / count).backward()
    gradient = model.layers[0].feedforward.up.weight.grad
    assert gradient is not None
    assert float(gradient.abs().max()) == pytest.approx(abs(slope), abs=1e-6)  # the cell that is chosen first
    shown.get_by_role("button", name="One step of all weights").click()
    expect(shown.locator("[role=status]")).to_contain_text("it fell by")
    shown.locator(".chart").press("ArrowRight")
    expect(shown.locator(".chart-box .readout")).to_contain_text("instead of")


@pytest.mark.slow
def test_the_chain_by_hand_matches_autograd(lesson: Page) -> None:
    shown = diagram(lesson, "chain")
    a, b = torch.tensor(3.0, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    for _ in range(2):
        h = a * 2
        p = b * h
        h.retain_grad()
        p.retain_grad()
        loss = (p - 5) ** 2
        loss.backward()
        slopes: list[Any] = [a.grad, h.grad, b.grad, p.grad, torch.tensor(1.0)]
        values = [figure(text) for text in shown.locator(".chain-value").all_inner_texts()]
        assert values == pytest.approx([float(torch.as_tensor(x).detach()) for x in (2, a, h, b, p, loss)], abs=0.006)
        found = [figure(text) for text in shown.locator(".chain-slope > span").all_inner_texts()]
        assert found == pytest.approx([float(slope) for slope in slopes], abs=0.006)
        with torch.no_grad():
            a -= 0.01 * slopes[0]
            b -= 0.01 * slopes[2]
        a.grad = b.grad = None
        shown.get_by_role("button", name="One step down").click()
        expect(shown.locator(".reading")).to_contain_text("the loss went from")


@pytest.mark.slow
@torch.no_grad()
def test_the_columns_are_pytorchs_losses(lesson: Page) -> None:
    shown = diagram(lesson, "loss")
    tokens = torch.tensor([compute(lesson, "() => GPT.app.state.tokens")])
    model = dequantised_model(compute(lesson, "() => GPT.exported"))
    nats = torch.nn.functional.cross_entropy(model(tokens)[0, :-1], tokens[0, 1:], reduction="none")
    columns = [figure(text) for text in shown.locator(".loss-columns small").all_inner_texts()]
    assert columns == pytest.approx(nats.tolist(), abs=0.051)
    shown.locator(".loss-columns button").nth(2).click()
    expect(shown.locator(".steps dd").last).to_have_text(f"{float(nats[2]):.2f}")
    assert compute(lesson, "() => GPT.app.state.token") == 2
