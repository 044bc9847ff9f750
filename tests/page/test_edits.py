"""Activations that are changed in the browser's forward pass change the logits as PyTorch's hooks do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from playwright.sync_api import Page

from page.browsing import compute
from transformer.activations import activation_names, run_with_hooks
from transformer.interop.lesson_page import dequantised_model

TOKENS = [82, 79, 256, 0, 82, 79, 10]
NOT_EDITED = ("attention.scores", "attention.weights", "logits")
"""Activations that have a name in PyTorch only."""

EDITED = """([exported, tokens, names]) => {
  const model = GPT.load(exported);
  const changed = (name) => model.run(tokens, (at, values) => at === name && values.map((x) => Math.sin(3 * x)));
  return names.map((name) => Array.from(changed(name).logits(tokens.length - 1)));
}"""

NAMES = """([exported, tokens]) => {
  const names = [];
  GPT.load(exported).run(tokens, (name) => { names.push(name); });
  return names;
}"""


@pytest.mark.parametrize(
    "settings",
    [{}, {"position": "rotary", "norm": "rmsnorm", "activation": "swiglu", "num_kv_heads": 2, "bias": False}],
    ids=str,
)
@torch.no_grad()
def test_an_edit_of_any_activation_gives_the_logits_that_a_hook_gives(
    settings: dict[str, Any], exported: Callable[..., dict[str, Any]], engine: Page
) -> None:
    made = exported(**settings)
    model = dequantised_model(made)
    names = [name for name in activation_names(model) if not name.endswith(NOT_EDITED)]
    assert compute(engine, NAMES, [made, TOKENS]) == names
    found = torch.tensor(compute(engine, EDITED, [made, TOKENS, names]))
    tokens = torch.tensor([TOKENS])
    hooked = [run_with_hooks(model, tokens, {name: lambda values: (3 * values).sin()})[0, -1] for name in names]
    torch.testing.assert_close(found, torch.stack(hooked), rtol=0, atol=1e-4)
    assert ((found - model(tokens)[0, -1]).abs().amax(-1) > 1e-3).all()  # every edit has an effect


def test_an_edit_that_returns_nothing_changes_no_number(exported: Callable[..., dict[str, Any]], engine: Page) -> None:
    run = """([exported, tokens, edit]) => {
      const trace = GPT.load(exported).run(tokens, edit ? () => {} : undefined);
      return tokens.map((_, t) => Array.from(trace.logits(t)));
    }"""
    made = exported()
    assert compute(engine, run, [made, TOKENS, True]) == compute(engine, run, [made, TOKENS, False])
