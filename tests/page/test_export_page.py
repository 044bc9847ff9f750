"""The lesson page and a page exported from a checkpoint open from a file, offline, and compute the model's logits."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page

from page.browsing import LOGITS, ROOT, compute
from transformer import DecoderOnlyTransformer, ModelConfig
from transformer.config import DataConfig, TrainConfig
from transformer.interop.lesson_page import dequantised_model
from transformer.text import load_tokenizer
from transformer.training import checkpoint

WHOLE_PAGE = 3_000_000
DEAD_LINKS = """() => Array.from(document.querySelectorAll("a[href]"), (link) => link.getAttribute("href")).filter(
  (to) => !(to[0] === "#" ? document.getElementById(to.slice(1)) : /^https:../.test(to)))"""
"""The links of a page that lead neither to an element in it nor to the web, but to a file."""
Opened = Callable[[Path], tuple[Page, list[str]]]


@pytest.fixture
def own_checkpoint(tmp_path: Path) -> Path:
    """A model with random weights and the 50,281 entries of p50k_base."""
    tokenizer = load_tokenizer("p50k_base")
    shape = ModelConfig(tokenizer.vocab_size, 16, 2, 1, 32, max_seq_len=24, position="rotary")
    config = TrainConfig(shape, DataConfig(encoding=tokenizer.name, seq_length=24))
    contents = checkpoint.model_contents(DecoderOnlyTransformer(shape), config, tokenizer)
    path = checkpoint.epoch_path(tmp_path, 3, tokenizer.short_name)
    checkpoint.save(path, {**contents, "step": 7, "epoch": 3, "tokens": 5_376})
    return path


def test_the_lesson_opens_offline_without_an_error_and_is_small(opened: Opened) -> None:
    page, wrong = opened(ROOT / "index.html")
    assert compute(page, "() => Object.keys(GPT.exported)")
    assert wrong == []
    files = [ROOT / "index.html", *(path for path in (ROOT / "page").rglob("*") if path.suffix in (".js", ".css"))]
    assert sum(path.stat().st_size for path in files) < WHOLE_PAGE


def test_the_readme_describes_the_shipped_model() -> None:
    content = (ROOT / "page" / "model.js").read_bytes()
    described = (ROOT / "page" / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(content).hexdigest() in described
    about = json.loads(re.findall(r'^  "about": (.*),$', content.decode("ascii"), re.MULTILINE)[0])
    assert f"{about['parameters']:,} parameters" in described
    for score in about["validation"].values():
        assert f"{score['loss']:.5f} | {score['perplexity']:.3f} | {score['bits_per_byte']:.5f}" in described


@torch.no_grad()
def test_an_exported_checkpoint_is_one_file_that_opens_offline_and_gives_its_logits(
    own_checkpoint: Path, tmp_path: Path, opened: Opened
) -> None:
    from transformer.cli.export_page.command import main
    from transformer.cli.export_page.options import ExportOptions

    (tmp_path / "elsewhere").mkdir()
    made = tmp_path / "elsewhere" / "page.html"
    main(ExportOptions(own_checkpoint, made))
    page, wrong = opened(made)
    text = "The cat's 1234 cats, déjà vu \U0001f600"
    loaded = checkpoint.load_model(own_checkpoint)
    tokens = compute(page, "text => GPT.load(GPT.exported).tokenizer.encode(text)", text)
    assert tokens == loaded.tokenizer.encode(text)
    rounded = dequantised_model(compute(page, "() => GPT.exported"))(torch.tensor([tokens]))[0]
    torch.testing.assert_close(torch.tensor(compute(page, LOGITS, [None, tokens])), rounded, rtol=0, atol=1e-4)
    torch.testing.assert_close(rounded, loaded.model(torch.tensor([tokens]))[0], rtol=0, atol=0.01)
    assert compute(page, "() => GPT.exported.about.parameters") == sum(loaded.model.parameter_counts().values())
    assert page.evaluate(DEAD_LINKS) == []
    assert "trained for 7 steps on 5,376 tokens" in page.inner_text("#training")
    assert wrong == []
