"""The plot of a distribution before and after each filter shows the probabilities of the stages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from transformer.config import SamplingConfig
from transformer.reporting.figures import as_label, save_figure
from transformer.reporting.sampling_plots import bar_lengths, draw_panel, draw_stages
from transformer.reporting.sampling_stages import stages

LOGITS = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0]).log()  # probabilities 8, 4, 2, 1 and 1 of 16


def stages_at(temperature: float) -> list[tuple[str, torch.Tensor]]:
    return stages(LOGITS, SamplingConfig("top_k", temperature, top_k=2))


def test_panels_are_in_the_order_of_the_filters_also_if_a_row_omits_some() -> None:
    figure = draw_stages([stages_at(1.0), stages_at(0.5), stages_at(0.0)], str, "after 'x'")
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles == [
        "softmax", "greedy off", "temperature off", "top_k 2",
        "softmax", "greedy off", "temperature 0.5", "top_k 2",
        "softmax", "greedy", "temperature off", "top_k off",
    ]  # fmt: skip


def test_a_panel_shows_the_number_of_kept_tokens_and_their_entropy() -> None:
    texts = [panel.texts[-1].get_text() for panel in draw_stages([stages_at(1.0)], str, "").axes]
    assert texts == ["5 tokens, 1.88 bits", "2 tokens, 0.92 bits"]  # 1/2 + 2/4 + 3/8 + 4/16 + 4/16; 2/3 and 1/3


def test_bars_are_probabilities_and_all_other_tokens_are_one_bar() -> None:
    softmax, kept = draw_stages([stages_at(1.0)], "abcde".__getitem__, "", tokens=3).axes
    assert [tick.get_text() for tick in softmax.get_yticklabels()] == ["a", "b", "c", "2 others"]
    lengths = [patch.get_width() for patch in kept.patches]  # before, then after
    assert lengths == pytest.approx([0.5, 0.25, 0.125, 0.125, 2 / 3, 1 / 3, 0, 0])
    assert softmax.get_ylim()[0] > softmax.get_ylim()[1]  # the most likely at the top


def test_removed_tokens_have_no_label_and_tiny_probabilities_have_one() -> None:
    from matplotlib.figure import Figure

    panel = Figure().subplots()
    draw_panel(panel, [0.5, 0.4, 0.1], [0.9999, 0.0, 0.0001], 1.0)
    assert [text.get_text() for text in panel.texts] == ["100.0%", "<0.1%"]


def test_removed_other_tokens_sum_to_exactly_0() -> None:
    probs = torch.rand(1_000).softmax(-1)
    top = probs.topk(20).indices
    kept = torch.zeros(1_000).scatter(0, top, probs[top])
    assert bar_lengths(kept / kept.sum(), top)[-1] == 0


def test_labels_escape_mathematics_and_characters_without_a_glyph(tmp_path: Path) -> None:
    assert as_label("$x$") == r"\$x\$"
    assert as_label("猫") == r"\u732b"
    assert as_label("a" * 99, 60) == "a" * 59 + "…"
    names = ["$", "_b", "猫", "é", r"'\n'"]
    files = tmp_path / "new" / "a.png", tmp_path / "new" / "a.svg"
    save_figure(draw_stages([stages_at(1.0)], names.__getitem__, "What follows '$ 猫'?"), *files)  # warnings are errors
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert "<svg" in files[1].read_text(encoding="utf-8")
