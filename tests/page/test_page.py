"""The lesson page opens, responds to typing, pointer and keyboard, and shows the numbers that PyTorch computes."""

from __future__ import annotations

import re
import textwrap
import threading
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Page, expect

from page.browsing import DRAWN, OTHER_SETTINGS, ROOT, TEXT, compute, only_in_chromium, serious_faults
from transformer import DecoderOnlyTransformer, ModelConfig
from transformer.interop.lesson_page import dequantised_model
from transformer.interpret.heads import score_habits

LESSON = (ROOT / "index.html").read_text(encoding="utf-8")
DIAGRAMS = re.findall(r'data-diagram="(\w+)"', LESSON)
WHOLE_PAGE = 3_000_000
Opened = Callable[[Path], tuple[Page, list[str]]]
OpenedModel = Callable[[dict[str, Any]], tuple[Page, list[str]]]

SEEN = """() => Object.fromEntries(Array.from(document.querySelectorAll("[data-diagram]"), (figure) => {
  const canvases = Array.from(figure.querySelectorAll("canvas"), (canvas) => canvas.toDataURL());
  return [figure.dataset.diagram, figure.innerHTML + canvases.join()];
}))"""
"""The content of each diagram, by name."""

CUT_LABELS = """() => Array.from(document.querySelectorAll(".strips-label")).filter((label) =>
  label.checkVisibility() && label.scrollWidth > label.clientWidth).map((label) => label.textContent)"""


@pytest.fixture
def computed(lesson: Page) -> tuple[DecoderOnlyTransformer, torch.Tensor, dict[str, int]]:
    """The same model in PyTorch, the text's tokens (1, T), and the selected layer and head."""
    found = compute(lesson, "() => [GPT.exported, GPT.app.state.tokens, GPT.app.state.layer, GPT.app.state.head]")
    return dequantised_model(found[0]), torch.tensor([found[1]]), {"layer": found[2], "head": found[3]}


def figure(text: str) -> float:
    """A number as the page writes it: −1,234.5, 12.3%, or <0.1% for less than 0.05%."""
    return 0.025 if text == "<0.1%" else float(text.replace("−", "-").replace(",", "").replace("%", ""))


@pytest.mark.parametrize("width", [360, *(pytest.param(wide, marks=pytest.mark.slow) for wide in (768, 1440))])
def test_it_opens_over_http_without_an_error_and_fits_the_window(browser: Browser, width: int) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(ROOT)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    wrong: list[str] = []
    try:
        with browser.new_page(viewport={"width": width, "height": 800}) as page:
            page.on("console", lambda message: wrong.append(message.text))
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("response", lambda response: wrong.append(response.url) if response.status >= 400 else None)
            page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
            page.evaluate(DRAWN)
            assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
            assert page.evaluate(CUT_LABELS) == []
    finally:
        server.shutdown()
        server.server_close()
    assert wrong == []


def test_typing_changes_every_diagram(lesson: Page) -> None:
    before = lesson.evaluate(SEEN)
    lesson.locator("#text").press("End")
    lesson.keyboard.type(" breaks?")
    lesson.evaluate(DRAWN)
    after = lesson.evaluate(SEEN)
    live = [
        name
        for name in DIAGRAMS
        if not lesson.locator(f"[data-diagram={name}]:is([data-schematic], [data-apart])").count()
    ]
    assert [name for name in live if before[name] == after[name]] == []
    assert (
        lesson.locator("#strip [aria-selected=true]").inner_text() == lesson.locator("#strip .token").last.inner_text()
    )


@pytest.mark.parametrize(
    "text", ["", "a", "\U0001f600 déjà\n\n", "to be or not to be " * 60], ids=["none", "a", "emoji", "long"]
)
def test_any_text_can_be_typed(shared_lesson: Page, text: str) -> None:
    shared_lesson.fill("#text", text)
    shared_lesson.evaluate(DRAWN)
    longest = shared_lesson.evaluate("() => GPT.model.config.max_seq_len")
    assert 1 <= shared_lesson.locator("#strip .token").count() <= longest
    cells = shared_lesson.locator("[role=gridcell][tabindex='0']")
    cells.focus()
    for key in ("Home", "End", "ArrowRight", "ArrowUp"):
        shared_lesson.keyboard.press(key)
        shared_lesson.evaluate(DRAWN)
        assert cells.count() == 1
    assert ("left out" in shared_lesson.locator("#cut").inner_text()) == (len(text) > longest)


def test_pressing_a_bar_appends_its_token(lesson: Page) -> None:
    bar = lesson.locator("[data-diagram=next] .bars button").first
    written = bar.locator(".token").inner_text()
    bar.click()
    lesson.evaluate(DRAWN)
    assert lesson.locator("#strip .token").last.inner_text() == written
    assert lesson.input_value("#text").startswith(TEXT)


def test_a_space_at_the_end_is_explained_and_moves_nothing(shared_lesson: Page) -> None:
    hint = shared_lesson.locator("#space")
    shared_lesson.fill("#text", "Long live the")
    shared_lesson.evaluate(DRAWN)
    below = "() => document.querySelector('.model-map').getBoundingClientRect().top + scrollY"
    top = shared_lesson.evaluate(below)
    shared_lesson.locator("#text").press("End")
    shared_lesson.keyboard.type(" ")
    expect(hint).to_have_text(re.compile("^Your text ends with a space.*remove it"))
    assert shared_lesson.evaluate(below) == top
    shared_lesson.keyboard.press("Backspace")
    expect(hint).to_have_text("")


@torch.no_grad()
def test_the_nearest_position_is_called_a_neighbour_only_if_it_is_one(shared_lesson: Page) -> None:
    shared_lesson.fill("#text", "to be or not to be, that is the question " * 2)
    shared_lesson.evaluate(DRAWN)
    weight = dequantised_model(compute(shared_lesson, "() => GPT.exported")).embeddings.position.weight  # type: ignore[union-attr]
    rows = torch.nn.functional.normalize(weight, dim=-1)
    cosines = rows @ rows.T
    beside = cosines.diagonal(1).mean()
    apart = torch.cat([cosines.diagonal(d) for d in range(2, len(rows))]).mean()
    reading = shared_lesson.locator("[data-diagram=positions] .reading")
    for token in (2, 16):
        shared_lesson.evaluate("token => GPT.app.set({ token })", token)
        shared_lesson.evaluate(DRAWN)
        nearest = int((cosines[token] - 2 * torch.eye(len(rows))[token]).argmax())
        words = reading.inner_text()
        assert f"The most similar row is that of position {nearest}." in words
        assert ("are neighbours" in words) == (abs(nearest - token) == 1)
        shown = [figure(text) for text in re.findall(r"−?\d+\.\d+", words)]
        assert shown == pytest.approx([float(beside), float(apart)], abs=0.006)
    assert beside < apart
    assert "less similar" in reading.inner_text()


def test_arrow_keys_move_in_the_matrix_and_along_the_tokens(lesson: Page) -> None:
    last = lesson.locator("#strip .token").count() - 1
    cells = lesson.locator("[role=gridcell][tabindex='0']")
    cells.focus()
    for key in ("End", "ArrowLeft", "ArrowUp", "ArrowRight"):
        lesson.keyboard.press(key)
        lesson.evaluate(DRAWN)
    assert cells.count() == 1
    focused = lesson.evaluate("() => ({ ...document.activeElement.dataset })")
    assert focused == {"row": str(last - 1), "column": str(last)}
    assert compute(lesson, "() => [GPT.app.state.token, GPT.app.state.key]") == [last - 1, last]
    expect(lesson.locator("[data-step=mask]")).to_have_text("−∞")
    expect(lesson.locator("[data-step=weight]")).to_have_text("0.0%")
    lesson.locator("#strip [tabindex='0']").focus()
    lesson.keyboard.press("Home")
    lesson.evaluate(DRAWN)
    assert compute(lesson, "() => GPT.app.state.token") == 0
    assert lesson.evaluate("() => document.activeElement.ariaSelected") == "true"


@pytest.mark.slow
def test_every_slider_and_choice_follows_the_arrow_keys(lesson: Page) -> None:
    sliders = lesson.locator("[role=slider]").all()
    assert len(sliders) >= 6
    for slider in sliders:
        slider.focus()
        for key in ("Home", "ArrowRight"):
            lesson.keyboard.press(key)
        assert slider.get_attribute("aria-valuenow") == "2"
        assert slider.get_attribute("aria-valuetext")
    lesson.locator("[data-diagram=attention] input").first.focus()
    lesson.keyboard.press("ArrowRight")
    assert compute(lesson, "() => GPT.app.state.layer") in (0, 1)


@torch.no_grad()
def test_pointing_at_a_cell_shows_pytorchs_dot_product_score_and_attention_weight(
    lesson: Page, computed: tuple[DecoderOnlyTransformer, torch.Tensor, dict[str, int]]
) -> None:
    model, tokens, at = computed
    block = model.layers[at["layer"]]
    context = model.context(tokens)
    x = model.embeddings(tokens, context.positions)
    for earlier in model.layers[: at["layer"]]:
        x = earlier(x, context)
    q, k, _ = block.attention.project(block.attention_norm(x), context.rotary)  # (1, H, T, D)
    weights = model.attention_weights(tokens)[at["layer"]][0, at["head"]]  # (T, T)
    lesson.locator("[data-diagram=attention]").scroll_into_view_if_needed()
    for row, column in [(0, 0), (5, 2), (8, 8)]:
        lesson.locator(f"[data-row='{row}'][data-column='{column}']").hover()
        shown = {
            step: figure(lesson.locator(f"[data-step={step}]").inner_text()) for step in ("dot", "score", "weight")
        }
        dot = float(q[0, at["head"], row] @ k[0, at["head"], column])
        assert shown["dot"] == pytest.approx(dot, abs=0.006)
        assert shown["score"] == pytest.approx(dot / model.config.head_dim**0.5, abs=0.006)
        assert shown["weight"] == pytest.approx(100 * float(weights[row, column]), abs=0.06)


def test_heads_show_the_scores_of_their_habits_beside_an_even_heads(
    lesson: Page, computed: tuple[DecoderOnlyTransformer, torch.Tensor, dict[str, int]]
) -> None:
    model, _, at = computed
    lesson.fill("#text", "to be or not to be")
    lesson.evaluate(DRAWN)
    tokens = torch.tensor([compute(lesson, "() => GPT.app.state.tokens")])
    habits = score_habits([model.attention_weights(tokens)[at["layer"]]], tokens)
    for head, card in enumerate(lesson.locator("[data-diagram=heads] article").all()):
        assert card.locator(".scores dt").all_inner_texts() == list(habits)
        shown = [figure(text) for text in card.locator(".scores dd").all_inner_texts() for text in text.split(" even ")]
        expected = [100 * each for habit in habits.values() for each in (float(habit.score[0, head]), habit.even)]
        assert shown == pytest.approx(expected, abs=0.06)
    assert habits["induction"].queries


@torch.no_grad()
def test_bars_and_lens_show_pytorchs_probabilities(
    lesson: Page, computed: tuple[DecoderOnlyTransformer, torch.Tensor, dict[str, int]]
) -> None:
    model, tokens, _ = computed
    probs = model(tokens)[0, -1].softmax(-1)
    shown = [figure(text) for text in lesson.locator("[data-diagram=next] button .bars-value").all_inner_texts()]
    assert shown == pytest.approx((100 * probs.topk(len(shown)).values).tolist(), abs=0.06)
    context = model.context(tokens)
    x = model.embeddings(tokens, context.positions)
    stages = [x] + [x := block(x, context) for block in model.layers]
    lens = [100 * model.head(model.final_norm(stage))[0, -1].softmax(-1).max() for stage in stages]
    firsts = lesson.locator("[data-diagram=lens] tbody tr td:nth-child(2) small").all_inner_texts()
    assert [figure(text) for text in firsts] == pytest.approx([float(percentage) for percentage in lens], abs=0.06)


@torch.no_grad()
def test_vectors_units_and_corrections_match_pytorch(
    lesson: Page, computed: tuple[DecoderOnlyTransformer, torch.Tensor, dict[str, int]]
) -> None:
    model, tokens, at = computed
    context = model.context(tokens)
    x = model.embeddings(tokens, context.positions)
    lengths = [float(x[0, -1].norm())]
    for layer, block in enumerate(model.layers):
        middle = x + block.attention(block.attention_norm(x), context)
        read = block.feedforward_norm(middle)
        if layer == at["layer"]:
            unit = block.feedforward.activation(block.feedforward.up(read))[0, -1].max()
            shown = lesson.locator("[data-diagram=feedforward] .is-marked .bars-value").inner_text()
            assert figure(shown) == pytest.approx(float(unit), abs=0.006)
        x = middle + block.feedforward(read)
        lengths += [float(middle[0, -1].norm()), float(x[0, -1].norm())]
    shown_lengths = lesson.locator("[data-diagram=stream] .bars-value").all_inner_texts()
    assert [figure(text.split("→ ")[-1]) for text in shown_lengths] == pytest.approx(lengths, abs=0.006)


@pytest.mark.slow
@pytest.mark.parametrize("settings", OTHER_SETTINGS, ids=str)
def test_models_with_other_settings_are_shown_without_an_error(
    settings: dict[str, Any], exported: Callable[..., dict[str, Any]], opened_model: OpenedModel
) -> None:
    values = exported(**settings)
    model = dequantised_model(values)
    page, wrong = opened_model(values)
    page.fill("#text", "Hi ")
    page.wait_for_timeout(1000)
    assert page.inner_text("#space") == ""  # a byte model reads the space as it is
    page.fill("#text", "Hi, é")
    page.evaluate(DRAWN)
    for choice in page.locator("[data-diagram=positions] input").all():
        choice.check(force=True)
        page.evaluate(DRAWN)
    page.locator("[role=slider]").first.hover()
    assert "undefined" not in page.inner_text("main")
    assert "NaN" not in page.inner_text("main")
    assert f"A language model with {sum(model.parameter_counts().values()):,} weights" in page.inner_text(".lede")
    assert "Romeo" not in page.inner_text(".examples")
    formulas = page.evaluate(FORMULAS)
    assert [words for words in LABELS.values() if (words in formulas) != (words in labels_of(model.config))] == []
    for position in ("sinusoidal", "rotary", "alibi"):
        assert page.locator(f"p[data-when='position={position}']").is_visible() == (model.config.position == position)
    assert wrong == []


LABELS = {
    "norm": "layer norm of x equals x minus its mean, over its standard deviation, times weight plus bias",
    "norm without bias": "layer norm of x equals x minus its mean, over its standard deviation, times weight",
    "rmsnorm": "R M S norm of x equals x over the square root of the mean of its squares, times weight",
    "network": "F F N of x equals W down times f of W up x plus b up, plus b down",
    "network without bias": "F F N of x equals W down times f of W up x",
    "gated": "F F N of x equals W down times the product of f of W gate x + b gate, and W up x + b up, plus b down",
    "gated without bias": "F F N of x equals W down times the product of f of W gate x, and W up x",
}
FORMULAS = """() => Array.from(document.querySelectorAll("math[aria-label]")).filter((math) => math.checkVisibility())
  .map((math) => math.getAttribute("aria-label"))"""


def labels_of(config: ModelConfig) -> set[str]:
    """The formulas of a model that are not the same in all models."""
    without = "" if config.bias else " without bias"
    norm = "rmsnorm" if config.norm == "rmsnorm" else f"norm{without}"
    return {LABELS[norm], LABELS[("gated" if config.activation == "swiglu" else "network") + without]}


def test_without_javascript_the_page_shows_what_holds_for_its_own_model(lesson: Page) -> None:
    written = re.findall(r'<\w+[^>]*\bdata-when="([^"]+)"([^>]*)>', LESSON)
    hidden = compute(
        lesson, "() => Array.from(document.querySelectorAll('[data-when]'), (part) => [part.dataset.when, part.hidden])"
    )
    assert [[when, " hidden" in rest] for when, rest in written] == hidden
    assert len(hidden) > 10
    assert set(lesson.evaluate(FORMULAS)) & set(LABELS.values()) == labels_of(ModelConfig())


@pytest.mark.slow
@only_in_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(lesson: Page, scheme: str) -> None:
    lesson.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    for details in lesson.locator("details").all():
        details.evaluate("element => { element.open = true; }")
    lesson.evaluate(DRAWN)
    assert serious_faults(lesson, scheme) == []
    if scheme == "light":  # on a phone, wide formulas scroll
        lesson.set_viewport_size({"width": 390, "height": 844})
        lesson.evaluate(DRAWN)
        lesson.wait_for_selector(".formula[tabindex='0']", state="attached")
        assert serious_faults(lesson, scheme, ["scrollable-region-focusable"]) == []
        lesson.set_viewport_size({"width": 1440, "height": 900})
        lesson.wait_for_selector(".formula[tabindex='0']", state="detached")


class Excerpts(HTMLParser):
    """Collects (file, code) of each <figure class="code" data-source="…">, each link and each id."""

    def __init__(self) -> None:
        super().__init__()
        self.source: str | None = None
        self.is_inside = False
        self.found: list[tuple[str, str]] = []
        self.links: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.source = given.get("data-source") or self.source
        self.is_inside = tag == "code" and self.source is not None
        self.links += [link for name in ("href", "src") if (link := given.get(name))]
        self.names |= {name} if (name := given.get("id")) else set()
        if self.is_inside:
            self.found.append((str(self.source), ""))

    def handle_endtag(self, tag: str) -> None:
        self.is_inside = self.is_inside and tag != "code"
        self.source = None if tag == "figure" else self.source

    def handle_data(self, data: str) -> None:
        if self.is_inside:
            self.found[-1] = (self.found[-1][0], self.found[-1][1] + data)


@pytest.fixture(scope="module")
def read() -> Excerpts:
    parser = Excerpts()
    parser.feed(LESSON)
    return parser


def test_code_on_the_page_is_in_its_file_line_by_line(read: Excerpts) -> None:
    assert len(read.found) >= 6
    for source, code in read.found:
        file = re.sub(r"  # type: ignore\S*", "", (ROOT / source).read_text(encoding="utf-8")).splitlines()
        for part in re.split(r"^…\n", code, flags=re.MULTILINE):
            lines = textwrap.dedent(part).rstrip().splitlines()
            runs = (file[at : at + len(lines)] for at in range(len(file)))
            assert any(textwrap.dedent("\n".join(run)).splitlines() == lines for run in runs), f"{source}: {part}"


def test_every_link_has_a_target(read: Excerpts) -> None:
    inside = [link for link in read.links if not link.startswith("http")]
    missing = [link for link in inside if not (link[1:] in read.names if link[0] == "#" else (ROOT / link).exists())]
    assert missing == []
    assert {link[:17] for link in read.links if link.startswith("http")} <= {"https://arxiv.org"}


def test_the_whole_page_is_small(read: Excerpts) -> None:
    files = {ROOT / "index.html", *(ROOT / link for link in read.links if link.startswith(("page/", "assets/")))}
    assert sum(file.stat().st_size for file in files) < WHOLE_PAGE
    scripts = {ROOT / link for link in read.links if link.endswith(".js")}
    for report in (ROOT / "page").glob("*/*.html"):  # their data, a script too, is written by a command
        links = re.findall(r'src="(page/[^"]+\.js)"', report.read_text(encoding="utf-8"))
        scripts |= {ROOT / link for link in links if (ROOT / link).exists()}
    assert set((ROOT / "page").rglob("*.js")) == scripts
