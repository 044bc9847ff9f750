"""A text that changes is read from its first change on; the trace is the same as if all of it had been read anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Page

from page.browsing import ROOT, compute
from transformer.interop.lesson_page import export
from transformer.text import load_tokenizer

CONTEXT = 12  # of the tiny models
KINDS = [
    {},
    {"position": "sinusoidal", "num_layers": 1},
    {"position": "alibi", "tie_embeddings": False},
    {"position": "rotary", "norm": "rmsnorm", "activation": "swiglu", "num_kv_heads": 2, "bias": False},
]

# The largest difference between numbers of two traces of the same names and shapes.
DIFFERENCE = """(a, b) => {
  const wrong = (what) => { throw new Error(what); };
  const compare = (one, other, name) => {
    if (ArrayBuffer.isView(one)) {
      if (String(one.shape) !== String(other.shape)) wrong(`${name}: ${one.shape}, ${other.shape}`);
      return one.reduce((most, x, i) => Math.max(most, Math.abs(x - other[i]) || (x === other[i] ? 0 : Infinity)), 0);
    }
    if (!one || typeof one !== "object") return one === other ? 0 : wrong(`${name}: ${one}, ${other}`);
    const isData = ([name, value]) => typeof value !== "function" && name !== "known";
    const names = (value) => Object.entries(value).filter(isData).map(([name]) => name).sort();
    if (String(names(one)) !== String(names(other))) wrong(`${name}: ${names(one)}, ${names(other)}`);
    return Math.max(0, ...names(one).map((key) => compare(one[key], other[key], `${name}.${key}`)));
  };
  const logits = (trace) => trace.tokens.map((_, t) => trace.logits(t));
  return Math.max(compare(a, b, "trace"), compare(logits(a), logits(b), "logits"));
}"""

READ = f"""([exported, texts, most]) => {{
  const difference = {DIFFERENCE};
  const model = GPT.load(exported);
  const reader = GPT.reading.reader(model);
  let [trace, passed, worst] = [null, [], 0];
  for (const tokens of texts) {{
    let count = 0;
    do {{
      const part = reader.read(tokens, Infinity, most);
      const {{ message, buffers }} = GPT.reading.packed(part);
      count += part.trace ? part.trace.T : 0;
      trace = GPT.reading.joined(model, trace, GPT.reading.unpacked(structuredClone(message, {{ transfer: buffers }})));
      if (trace.T > 1) trace.logits(1);
    }} while (trace.T < tokens.length);
    passed.push(count);
    worst = Math.max(worst, difference(trace, model.run(tokens)));
  }}
  return [passed, worst];
}}"""

edits = st.lists(
    st.tuples(st.integers(0, CONTEXT), st.integers(0, CONTEXT), st.lists(st.integers(0, 2), max_size=CONTEXT)),
    min_size=1,
    max_size=6,
)


def texts_of(changes: list[tuple[int, int, list[int]]]) -> list[list[int]]:
    """The text after each change, which removes and inserts tokens at a position. It is never empty, never too long."""
    text: list[int] = [1]
    found = []
    for at, removed, inserted in changes:
        text = (text[:at] + inserted + text[at + removed :])[-CONTEXT:] or [1]
        found.append(text)
    return found


@pytest.fixture(scope="module", params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest, tiny_model: Callable[..., Any]) -> dict[str, Any]:
    return export(tiny_model(**{"vocab_size": 257, **request.param}), load_tokenizer("byte"), {})


@pytest.fixture(scope="module")
def reading(engine: Page) -> Page:
    engine.add_script_tag(path=ROOT / "page" / "reading.js")
    return engine


@settings(max_examples=15, deadline=None)
@given(changes=edits, most=st.integers(1, CONTEXT))
def test_any_edits_give_the_trace_of_a_fresh_run(
    changes: list[tuple[int, int, list[int]]], most: int, kind: dict[str, Any], reading: Page
) -> None:
    texts = texts_of(changes)
    found = compute(reading, READ, [kind, texts, most])
    assert not isinstance(found, str), found
    passed, worst = found
    assert worst <= 1e-5
    before: list[int] = []
    for text, count in zip(texts, passed, strict=True):
        same = next(
            (i for i, (a, b) in enumerate(zip(before, text, strict=False)) if a != b), min(len(before), len(text))
        )
        assert count == len(text) - same
        before = text


# Counts the tokens that pass through the model; then gives their number and how far the trace is from a fresh run's.
WATCH = """() => {
  const { joined } = GPT.reading;
  window.passed = 0;
  GPT.reading.joined = (model, before, part) => {
    window.passed += part.trace ? part.trace.T : 0;
    return joined(model, before, part);
  };
}"""

CHECK = f"""() => {{
  const {{ state, model }} = GPT.app;
  const passed = window.passed;
  window.passed = 0;
  const all = model.tokenizer.encode(state.text);
  const isEnd = !all.length || String(all.slice(-state.tokens.length)) === String(state.tokens);
  return [passed, state.tokens.length, isEnd, ({DIFFERENCE})(state.trace, model.run(state.tokens))];
}}"""


def test_a_key_at_the_end_of_a_text_costs_a_token_or_two_and_not_the_whole_text(lesson: Page) -> None:
    lesson.evaluate(WATCH)
    box = lesson.locator("#text")

    def after(*keys: str) -> tuple[int, int]:
        for key in keys:
            box.press(key)
        lesson.evaluate("GPT.app.settled()")
        passed, length, is_end, worst = lesson.evaluate(CHECK)
        assert is_end
        assert worst <= 1e-5
        return passed, length

    lesson.fill("#text", "what light " * 70)  # more than the context
    _, length = after("End")
    assert 90 < length <= 128
    assert 1 <= after("b")[0] <= 2
    assert after("Backspace")[0] <= 1
    assert 1 <= after("ControlOrMeta+End", "x")[0] <= 2
    for key in ("x", "Delete"):
        passed, length = after("ControlOrMeta+Home", key)
        assert passed >= length - 2  # at the beginning, all of it
    box.press("ControlOrMeta+A")
    box.press("Delete")
    assert after()[1] == 1


def test_a_key_at_the_end_is_read_before_the_next_frame(lesson: Page) -> None:
    lesson.fill("#text", "what light " * 70)
    lesson.evaluate("GPT.app.settled()")
    lesson.evaluate("""() => {
      document.getElementById("text").addEventListener("input", () => {
        window.atOnce = GPT.app.state.text + "|" + GPT.app.state.trace.T;
      }, { once: true });
    }""")
    lesson.locator("#text").press("ControlOrMeta+End")
    lesson.locator("#text").press("q")
    lesson.evaluate("GPT.app.settled()")
    text, length = lesson.evaluate("window.atOnce").split("|")
    assert text == "what light " * 70 + "q"
    assert int(length) == lesson.evaluate("GPT.app.state.tokens.length")


# Changes the text again and again, mostly before the worker has answered. Gives the largest difference between the
# trace and a fresh run's, after each pause; infinite if it is not the trace of the last text.
HURRY = f"""async (steps) => {{
  const {{ app, model }} = GPT;
  let worst = 0;
  for (const [text, wait] of [...steps, [steps.at(-1)[0], "all"]]) {{
    app.set({{ text }});
    if (wait === "a moment") await new Promise((done) => setTimeout(done, 4));
    if (wait !== "all") continue;
    await app.settled();
    const {{ state }} = app;
    const isLast = state.text === text && String(state.trace.tokens) === String(state.tokens);
    worst = Math.max(worst, isLast ? ({DIFFERENCE})(state.trace, model.run(state.tokens)) : Infinity);
  }}
  return worst;
}}"""

passages = st.builds(
    lambda begin, times, end: begin + "what light " * times + end,
    st.sampled_from(["a", "b"]),
    st.sampled_from([8, 35]),  # so that different texts are often of the same length
    st.sampled_from(["", "a", "ab", " so"]),
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(passages, st.sampled_from(["no", "no", "a moment", "all"])), min_size=2, max_size=8))
def test_the_last_text_counts_whatever_was_asked_before(steps: list[tuple[str, str]], lesson: Page) -> None:
    assert lesson.evaluate(HURRY, steps) <= 1e-5


@pytest.mark.slow
def test_a_key_at_the_end_of_a_long_text_costs_much_less_than_the_whole_text(lesson: Page) -> None:
    """In steps of the model with its cache: minima of pairs measured in turn, because other work only adds time."""
    lesson.fill("#text", "what light " * 70)
    lesson.evaluate("GPT.app.settled()")
    key, step, length = lesson.evaluate("""async () => {
      const { app, model } = GPT;
      const { text } = app.state;
      const tokens = app.state.tokens.slice(0, -1);
      const cache = model.start();
      model.advance(tokens, cache);
      const found = { key: [], step: [] };
      for (let i = 0; i < 15; i += 1) {
        let begun = performance.now();
        app.set({ text: text + (i % 2 ? "" : "x") });
        found.key.push(performance.now() - begun);
        if (app.state.text.length !== text.length + 1 - (i % 2)) throw new Error("not read at once");
        await app.settled();
        cache.length = tokens.length;
        begun = performance.now();
        model.step(cache, 5);
        found.step.push(performance.now() - begun);
      }
      return [Math.min(...found.key), Math.min(...found.step), tokens.length];
    }""")
    assert length > 90
    assert key < 10 * step, (key, step)
