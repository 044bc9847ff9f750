"""The chapters on training, generation and sampling show the project's data, and their numbers match Python's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import page_data
import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from page.browsing import DRAWN, ROOT, TEXT, compute
from transformer import DecoderOnlyTransformer, KVCache, ModelConfig, SamplingConfig
from transformer.config import SAMPLING_PRESETS, DataConfig, OptimizerConfig, TrainConfig
from transformer.generation import generate
from transformer.interop.lesson_page import dequantised_model, script
from transformer.planning.cost import cost, flops
from transformer.reporting.sampling_stages import entropy_bits
from transformer.sampling import logits_to_probs
from transformer.scheduler import lr_scale

CHAPTERS = ["accumulate", "batch", "schedule", "runs", "cache", "work", "sampling"]
SHAPES = [
    ModelConfig(2048, 128, 4, 4, 512, dropout=0.0),
    ModelConfig(257, 16, 4, 2, 24, num_kv_heads=2, position="rotary", norm="rmsnorm", activation="swiglu", dropout=0.0),
    ModelConfig(500, 32, 2, 1, 64, position="alibi", activation="relu", dropout=0.0),
]


@pytest.fixture(scope="module")
def arithmetic(engine: Page) -> Page:
    for name in ("training", "generation"):
        engine.add_script_tag(path=ROOT / "page" / f"{name}.js")
    return engine


@pytest.fixture
def model(lesson: Page) -> DecoderOnlyTransformer:
    return dequantised_model(compute(lesson, "() => GPT.exported"))


def diagram(page: Page, name: str) -> Locator:
    found = page.locator(f"[data-diagram={name}]")
    found.scroll_into_view_if_needed()
    return found


def numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*\.?\d*", text)]


def test_the_data_files_are_up_to_date() -> None:
    for path, text in page_data.files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is out of date: run python scripts/page_data.py"


def test_the_three_runs_end_with_the_expected_verdicts() -> None:
    runs = {name: page_data.run(page_data.DATA / "runs" / f"{name}.jsonl") for name in page_data.RUNS}
    assert [runs[name]["verdicts"][-1][0] for name in page_data.RUNS] == ["learning", "underfitting", "overfitting"]
    assert all(len(run["verdicts"]) == len(run["validation"]) >= 50 for run in runs.values())


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
def test_the_learning_rate_matches_python_at_every_step(schedule: Any, arithmetic: Page) -> None:
    for warmup, floor, total in [(0.0, 0.1, 10), (0.1, 0.0, 100), (0.25, 1.0, 10), (0.5, 0.3, 7), (1.0, 0.0, 5)]:
        settings = OptimizerConfig(schedule=schedule, warmup_fraction=warmup, min_lr_ratio=floor)
        wanted = [lr_scale(step, total, settings) for step in range(total + 3)]
        argument = [total, vars(settings)]
        code = "([total, s]) => Array.from({ length: total + 3 }, (_, i) => GPT.training.lrScale(i, total, s))"
        assert compute(arithmetic, code, argument) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.position)
def test_memory_and_work_match_the_cost_model(shape: ModelConfig, arithmetic: Page) -> None:
    config = {**shape.to_dict(), "kv_heads": shape.kv_heads, "head_dim": shape.head_dim}
    data = DataConfig("my_text", seq_length=128)
    plan = TrainConfig(shape, data, batch_size=8, accumulation_steps=1, precision="float32")
    for rows in (1, 8, 128):
        wanted = cost(replace(plan, batch_size=rows)).memory["activations"]
        assert (
            compute(arithmetic, "([c, rows]) => GPT.training.activationBytes(c, rows, 128)", [config, rows]) == wanted
        )
    counted = flops(shape, 40)
    forward = (sum(counted.values()) - counted["head"]) * 40 // 6 + counted[
        "head"
    ] // 6  # a sixth of the FLOPs are forward multiply-adds
    each = compute(arithmetic, "c => GPT.generation.work(c, 38, 3)", config)
    assert each[2]["uncached"] == forward
    assert each[0]["cached"] == each[0]["uncached"]
    one = (sum(counted.values())) // 6
    assert each[2]["cached"] == one  # one token, against 40
    cache = KVCache.allocate(shape, batch_size=1)
    cache.advance(9)
    assert compute(arithmetic, "c => GPT.generation.cacheBytes(c, 9)", config) == cache.nbytes


def test_the_gradient_on_the_page_matches_autograd(exported: Callable[..., dict[str, Any]], arithmetic: Page) -> None:
    known = exported(tie_embeddings=False)
    tokens = [82, 79, 256, 0, 82, 79, 10]
    code = """([exported, tokens]) => {
      const model = GPT.load(exported);
      const { losses, gradients } = GPT.training.lossGradients(model, model.run(tokens));
      return [losses, Array.from(GPT.training.accumulated(gradients, losses.length))];
    }"""
    losses, gradient = compute(arithmetic, code, [known, tokens])
    model = dequantised_model(known)
    constant = torch.zeros(model.config.d_model, requires_grad=True)
    logits = model.head(model.hidden(torch.tensor([tokens[:-1]])) + constant)[0]
    nats = torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[1:]), reduction="none")
    nats.mean().backward()
    assert constant.grad is not None
    torch.testing.assert_close(torch.tensor(losses), nats.detach(), rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.tensor(gradient), constant.grad, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_accumulated_micro_batches_equal_the_whole_batch(lesson: Page) -> None:
    shown = diagram(lesson, "accumulate")
    size, done = shown.locator("input[type=range]").all()
    size.press("Home")
    size.press("ArrowRight")
    size.press("ArrowRight")  # micro-batches of 3 tokens
    expect(shown.locator(".micro-batch").first.locator(".token")).to_have_count(3)
    done.press("ArrowRight")
    expect(shown.locator(".reading")).to_contain_text("by a cosine of")
    done.press("End")
    expect(shown.locator(".reading")).to_contain_text("The sum is the whole batch's gradient to")
    first, second = shown.locator("canvas").all()[1:]
    assert first.evaluate("c => c.toDataURL()") == second.evaluate("c => c.toDataURL()")


@pytest.mark.slow
def test_every_slider_and_chart_responds_to_the_keyboard(lesson: Page) -> None:
    for name in CHAPTERS:
        shown = diagram(lesson, name)
        lesson.evaluate(DRAWN)
        controls = shown.locator("input[type=range]:visible, .chart").all()
        assert controls
        for control in controls:
            before, at = shown.inner_text(), control.get_attribute("aria-valuetext")
            for key in ("ArrowLeft", "ArrowRight", "ArrowRight"):
                control.press(key)
                if control.get_attribute("aria-valuetext") != at:
                    break
            lesson.evaluate(DRAWN)
            assert control.get_attribute("aria-valuetext") != at
            assert shown.inner_text() != before


@pytest.mark.slow
def test_accumulation_needs_the_memory_of_a_micro_batch_and_has_the_noise_of_the_whole_batch(lesson: Page) -> None:
    lines = {line.split("\t")[0]: line.split("\t")[1:] for line in diagram(lesson, "batch").inner_text().splitlines()}
    noise = json.loads((page_data.RESULTS / "accumulation.json").read_text())["noise"][-1]["noise_scale"]
    assert lines["tokens per step"] == ["1,024", "16,384", "16,384"]
    one, both, all_rows = lines["activations in memory"]
    assert one == both != all_rows
    assert lines["noise-to-signal ratio"] == [f"{(noise / steps) ** 0.5:.2f}" for steps in (1, 16, 16)]


@pytest.mark.slow
def test_the_verdict_follows_the_cursor_through_a_run(lesson: Page) -> None:
    shown = diagram(lesson, "runs")
    run = page_data.run(page_data.DATA / "runs" / "overfits.jsonl")
    shown.locator("input[type=radio]").last.check(force=True)
    expect(shown.locator(".verdict")).to_contain_text("overfitting: validation rises")
    shown.locator(".chart").press("PageDown")
    expect(shown.locator(".readout")).to_contain_text(f"Step {run['validation'][-11][0]}: ")
    shown.locator(".chart").press("Home")
    expect(shown.locator(".verdict")).to_contain_text("uncertain")


@pytest.mark.slow
@torch.no_grad()
def test_the_cache_grows_by_the_formula_and_the_greedy_text_matches_python(
    lesson: Page, model: DecoderOnlyTransformer
) -> None:
    shown = diagram(lesson, "cache")
    tokens: list[int] = compute(lesson, "() => GPT.app.state.tokens")
    written = generate(model, torch.tensor([tokens]), 4, SamplingConfig())[0].tolist()
    spelt = [compute(lesson, "id => GPT.draw.visible(GPT.app.piece(id))", token) for token in written]
    for moment in range(1, 4):
        cache = KVCache.allocate(model.config, batch_size=1)
        cache.advance(len(tokens) + moment - 1)
        expect(shown.locator(".sum b")).to_have_text(f"{cache.nbytes:,}")
        texts = shown.locator(".cache-text .token").all_inner_texts()
        assert texts == spelt[: len(tokens) + moment]
        shown.get_by_role("button", name="Next").press("Enter")
        expect(shown.locator("output")).to_have_text(f"decode {moment}")


@pytest.mark.slow
def test_the_cache_diagram_plays_only_on_request(lesson: Page) -> None:
    shown = diagram(lesson, "cache")
    moment = shown.locator("output")
    lesson.wait_for_timeout(1100)
    expect(moment).to_have_text("prefill")
    shown.get_by_role("button", name="Play").press("Enter")
    expect(moment).to_have_text("decode 1")
    shown.get_by_role("button", name="Pause").press("Enter")
    lesson.wait_for_timeout(1100)
    expect(moment).to_have_text("decode 1")


@pytest.mark.slow
@torch.no_grad()
def test_sampling_keeps_the_same_tokens_as_python(lesson: Page, model: DecoderOnlyTransformer) -> None:
    shown = diagram(lesson, "sampling")
    logits = model(torch.tensor([compute(lesson, "() => GPT.app.state.tokens")]))[0, -1]
    for name, preset in SAMPLING_PRESETS.items():
        shown.get_by_role("button", name=name, exact=True).click()
        expect(shown.get_by_role("button", name=name, exact=True)).to_have_attribute("aria-pressed", "true")
        probs = logits_to_probs(logits, preset)
        if name == "greedy":
            expect(shown.locator(".reading")).to_contain_text("one token is left")
            continue
        kept, _, bits, was, *_ = numbers(shown.locator(".reading").inner_text())
        assert kept == int((probs > 0).sum())
        assert bits == pytest.approx(entropy_bits(probs), abs=0.006)
        assert was == pytest.approx(entropy_bits(logits.softmax(-1)), abs=0.006)


@pytest.mark.slow
def test_an_uncertain_token_is_chosen_by_a_button(lesson: Page) -> None:
    """Settings that leave only one token: every draw gave the same, and the controls looked dead."""
    shown = diagram(lesson, "sampling")
    shown.get_by_role("button", name="balanced", exact=True).click()
    lesson.fill("#text", "The king is dead. Long live the king! Long live the")
    lesson.evaluate(DRAWN)
    expect(shown.locator(".reading")).to_contain_text("one token is left")
    shown.get_by_role("button", name="Choose an uncertain token").click()
    expect(shown.locator(".reading")).to_contain_text("tokens can be drawn")
    chosen, logits = compute(
        lesson,
        "() => [GPT.app.state.token, GPT.app.state.tokens.map((_, t) => Array.from(GPT.app.state.trace.logits(t)))]",
    )
    entropies = [entropy_bits(row) for row in torch.tensor(logits).softmax(-1)]
    assert chosen == entropies.index(max(entropies))
    shown.get_by_role("button", name="Draw 20").click()
    lesson.evaluate("GPT.app.settled()")
    assert len(set(shown.locator(".draws .token").all_inner_texts())) > 1


@pytest.mark.slow
def test_the_same_seed_gives_the_same_draws_and_text(lesson: Page) -> None:
    shown = diagram(lesson, "sampling")
    found = []
    for seed in ("1", "2", "1"):
        shown.get_by_label("Seed").select_text()
        lesson.keyboard.type(seed)
        shown.get_by_role("button", name="Draw 20").click()
        expect(shown.locator(".draws .token")).to_have_count(20)
        found.append(shown.locator(".draws .token").all_inner_texts())
    assert found[0] == found[2] != found[1]
    texts = []
    for _ in range(2):
        lesson.fill("#text", TEXT)
        lesson.evaluate(DRAWN)
        shown.get_by_role("button", name="Generate").click()
        texts.append(lesson.input_value("#text"))
    assert texts[0] == texts[1] != TEXT
    assert texts[0].startswith(TEXT)


@pytest.mark.slow
def test_the_speed_curve_is_shown_if_it_was_measured(
    tmp_path: Path, exported: Callable[..., dict[str, Any]], opened: Callable[[Path], tuple[Page, list[str]]]
) -> None:
    from transformer.cli.benchmark.command import main
    from transformer.cli.benchmark.options import read_options
    from transformer.cli.export_page import command as export_page

    options = ["--preset", "tiny", "--repeats", "1", "--lengths", "12", "24", "--out", str(tmp_path), "--device", "cpu"]
    main(read_options(options))
    measured = page_data.generation(tmp_path / "results.json")
    assert measured is not None
    assert page_data.generation(tmp_path / "none.json") is None
    text = export_page.page(script(exported()))
    for data, is_there in [(None, False), (measured, True)]:
        made = tmp_path / "page.html"
        shipped = (page_data.DATA / "generation.js").read_text(encoding="utf-8")
        made.write_text(text.replace(shipped, page_data.script("generation", data)), encoding="utf-8")
        page, wrong = opened(made)
        page.evaluate(DRAWN)
        shown = page.locator("[data-diagram=speed]")
        assert shown.is_visible() == is_there
        assert wrong == []
    page.evaluate("() => GPT.app.set({})")
    shown.locator(".chart").press("Home")
    expect(shown.locator(".readout")).to_contain_text("12 tokens: ")
    expect(shown.locator(".reading")).to_contain_text(f"{measured['points'][0]['speedup']:.1f} times as fast")
