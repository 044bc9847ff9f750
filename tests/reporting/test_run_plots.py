"""Plots of runs contain the values and names in the metrics files."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from transformer import ModelConfig, TrainConfig
from transformer.config import DataConfig
from transformer.data.open import open_dataset
from transformer.reporting.history import Against, moving_median, read_histories
from transformer.reporting.metrics_log import METRICS_FILE, MetricsLog
from transformer.reporting.run_plots import draw, save_loss_curve
from transformer.trainer import Trainer
from transformer.training.events import EvalMetrics, Event, RunStarted, StepMetrics

PNG = b"\x89PNG\r\n\x1a\n"
STEP = StepMetrics(1, 1, 5.5, 244.7, 1e-4, 1.25, 32, 1000.0, 0.1)
EVALUATION = EvalMetrics(1, 1, 5.25, 190.6, 2.345, 100, 0.05)


def run(folder: Path, *, steps: int = 30, evaluations: int = 3, diverged: bool = False, seconds: float = 0.1) -> Path:
    """Writes the metrics of a run whose loss falls from 5.5 to about 2."""
    log = MetricsLog(folder)
    log(RunStarted(folder.name, 0, steps, steps, 32, 1000, "cpu"))
    for number in range(1, steps + 1):
        loss = float("nan") if diverged and number > 3 else 2 + 3.5 / number
        log(replace(STEP, step=number, tokens=32 * number, loss=loss, seconds=seconds * number))
        if evaluations and number % (steps // evaluations) == 0:
            log(replace(EVALUATION, step=number, loss=loss))
    return log.path


def test_a_png_is_written_to_the_given_path(tmp_path: Path) -> None:
    file = save_loss_curve([run(tmp_path / "a")], tmp_path / "new" / "folder" / "curve.png")
    assert file == tmp_path / "new" / "folder" / "curve.png"
    contents = file.read_bytes()
    assert contents.startswith(PNG)
    width, height = (int.from_bytes(contents[at : at + 4], "big") for at in (16, 20))
    assert width >= 1000
    assert height >= 600
    assert len(contents) > 20_000  # an empty frame of this size takes less


def test_a_plot_of_several_runs_names_each_run_and_its_score(tmp_path: Path) -> None:
    runs = [run(tmp_path / name) for name in ("checkpoints_demo", "checkpoints_quick")]
    text = save_loss_curve(runs, tmp_path / "curves.svg").read_text(encoding="utf-8")
    assert "<svg" in text
    texts = set(re.findall(r"<!-- (.*?) -->", text))
    for name in ("checkpoints_demo", "checkpoints_quick"):
        assert f"{name}: train" in texts
        assert f"{name}: validation, 2.345 bits per byte" in texts
    below = {"learning rate", "gradient norm", "tokens/s"}
    assert {"loss (nats per token)", "tokens seen", "perplexity"} | below <= texts


def test_the_suffix_pdf_writes_a_pdf(tmp_path: Path) -> None:
    assert save_loss_curve([run(tmp_path / "a")], tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_the_right_axis_shows_perplexity_at_round_numbers(tmp_path: Path) -> None:
    text = save_loss_curve([run(tmp_path / "a")], tmp_path / "a.svg").read_text(encoding="utf-8")
    assert {"10", "20", "50", "100", "200"} <= set(re.findall(r"<!-- (.*?) -->", text))


def points(svg: str, color: str) -> int:
    """Returns the number of dots of a colour in the SVG."""
    return len(re.findall(rf"<use [^>]*style=\"fill: {color}", svg))


def test_every_evaluation_of_a_run_is_a_dot_on_its_curve(tmp_path: Path) -> None:
    """Evaluations at steps without a log line, such as the ends of most epochs, were not drawn."""
    (tmp_path / "a.txt").write_text("The cat sat on the mat, and then it sat on the hat.\n" * 40, encoding="utf-8")
    config = TrainConfig(
        ModelConfig(257, 8, 2, 1, 8, max_seq_len=8),
        DataConfig(str(tmp_path / "a.txt"), "byte", 8, tokens_per_epoch=80, validation_tokens=50),
        epochs=3,
        batch_size=2,
        accumulation_steps=1,
        eval_every=3,
        log_every=2,
        checkpoint_dir=str(tmp_path / "run"),
        device="cpu",
    )
    evaluations: list[int] = []

    def count(event: Event) -> None:
        if isinstance(event, EvalMetrics):
            evaluations.append(event.step)

    Trainer(config, open_dataset(config.data), [MetricsLog(tmp_path / "run"), count]).fit()
    assert evaluations == [3, 5, 6, 9, 10, 12, 15]
    svg = save_loss_curve([tmp_path / "run" / METRICS_FILE], tmp_path / "a.svg").read_text(encoding="utf-8")
    legend = 1
    assert points(svg, "#1f77b4") == len(evaluations) + legend


@pytest.mark.parametrize("settings", [{"evaluations": 0}, {"steps": 1, "evaluations": 1}, {"diverged": True}])
def test_runs_without_evaluations_of_one_step_or_diverged_are_drawn(tmp_path: Path, settings: dict[str, int]) -> None:
    assert save_loss_curve([run(tmp_path / "a", **settings)], tmp_path / "a.png").read_bytes().startswith(PNG)


def test_a_metrics_file_with_an_incomplete_last_line_is_drawn(tmp_path: Path) -> None:
    path = run(tmp_path / "a")
    path.write_bytes(path.read_bytes()[:-30])
    assert save_loss_curve([path], tmp_path / "a.png").read_bytes().startswith(PNG)


def test_a_run_without_steps_is_omitted_if_another_run_has_steps(tmp_path: Path) -> None:
    empty = run(tmp_path / "empty", steps=0, evaluations=0)
    full = run(tmp_path / "full")
    text = save_loss_curve([empty, full], tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "full: train" in text
    assert "empty: train" not in text


def test_no_steps_at_all_is_an_error_and_writes_no_file(tmp_path: Path) -> None:
    empty = run(tmp_path / "empty", steps=0, evaluations=0)
    with pytest.raises(ValueError, match=r"no training step in .*empty.*: nothing to draw"):
        save_loss_curve([empty], tmp_path / "a.png")
    with pytest.raises(FileNotFoundError):
        save_loss_curve([tmp_path / "none.jsonl"], tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_an_unknown_suffix_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"xyz.*png.*svg"):
        save_loss_curve([run(tmp_path / "a")], tmp_path / "a.xyz")
    assert not (tmp_path / "a.xyz").exists()


def test_drawing_needs_no_display_and_leaves_no_figure_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("MPLBACKEND", "qtagg")
    for number in range(3):
        save_loss_curve([run(tmp_path / str(number))], tmp_path / f"{number}.png")
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def texts_in(*runs: Path, against: Against = "tokens") -> set[str]:
    """Returns all texts in the plot of these runs."""
    file = save_loss_curve(runs, runs[0].parent / "texts.svg", against=against)
    return set(re.findall(r"<!-- (.*?) -->", file.read_text(encoding="utf-8")))


def test_one_call_writes_several_formats(tmp_path: Path) -> None:
    first = save_loss_curve([run(tmp_path / "a")], tmp_path / "a.png", tmp_path / "b" / "a.svg")
    assert first == tmp_path / "a.png"
    assert first.read_bytes().startswith(PNG)
    assert "<svg" in (tmp_path / "b" / "a.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("against", "axis", "last"), [("tokens", "tokens seen", 960), ("steps", "steps", 30), ("seconds", "minutes", 5.0)]
)
def test_the_horizontal_axis_shows_the_chosen_quantity(
    tmp_path: Path, against: Against, axis: str, last: float
) -> None:
    figure = draw(read_histories([run(tmp_path / "a", seconds=10.0)]), against)
    assert figure.axes[-1].get_xlabel().startswith(axis)
    assert [panel.lines[0].get_xdata()[-1] for panel in figure.axes] == pytest.approx([last] * 4)


def test_folders_with_equal_names_are_distinguished_by_their_parents(tmp_path: Path) -> None:
    runs = [run(tmp_path / name / "checkpoints") for name in ("a", "b")] + [run(tmp_path / "b" / "other")]
    texts = texts_in(*runs, runs[0])
    assert {"a/checkpoints: train", "b/checkpoints: train", "other: train"} <= texts
    assert len([text for text in texts if text.endswith(": train")]) == 3  # runs[0] was passed twice


def test_names_that_matplotlib_would_typeset_or_hide_are_shown(tmp_path: Path) -> None:
    texts = texts_in(run(tmp_path / "_a$b$"), run(tmp_path / "$c"))
    assert {"./_a$b$: train", "$c: train"} <= texts


def test_a_long_run_is_drawn_as_logged_and_as_moving_median_with_a_note(tmp_path: Path) -> None:
    figure = draw(read_histories([run(tmp_path / "a", steps=80, evaluations=0)]))
    raw, smooth = figure.axes[0].lines
    assert list(raw.get_ydata()) == [2 + 3.5 / number for number in range(1, 81)]
    assert list(smooth.get_ydata()) == moving_median(list(raw.get_ydata()), 2)
    assert smooth.get_linewidth() > raw.get_linewidth()
    assert "median of the nearest 5%" in figure.axes[0].get_title(loc="left")
    assert len(draw(read_histories([run(tmp_path / "b", steps=10, evaluations=0)])).axes[0].lines) == 1


def test_values_that_are_not_finite_do_not_change_the_median_around_them() -> None:
    assert moving_median([1.0, 2.0, math.nan, 4.0, math.inf, 9.0], 1) == pytest.approx(
        [1.0, 1.5, math.nan, 4.0, math.nan, 9.0], nan_ok=True
    )
    assert moving_median([], 3) == []


def test_the_smooth_line_follows_a_steep_fall() -> None:
    """A moving mean lay above all points there: the mean of a curve that bends is not on the curve."""
    falling = [9 * 0.7**step for step in range(40)]
    assert moving_median(falling, 3)[:-3] == falling[:-3]


def test_skipped_steps_are_crosses_and_not_a_loss_of_zero(tmp_path: Path) -> None:
    """Earlier versions logged a loss of 0 if all steps of a log line were skipped."""
    path = run(tmp_path / "a", steps=10, evaluations=0)
    MetricsLog(path.parent)(replace(STEP, step=11, tokens=352, loss=0.0, grad_norm=math.nan, skipped=1))
    figure = draw(read_histories([path]))
    crosses = {panel.get_ylabel(): line.get_xdata() for panel in figure.axes for line in panel.lines[:2]
               if line.get_marker() == "x"}  # fmt: skip
    assert {name: list(x) for name, x in crosses.items()} == {
        "loss (nats per token)": [352], "gradient norm": [352]
    }  # fmt: skip
    assert figure.axes[0].get_ylim()[0] > 1
    assert "x: skipped or not finite" in figure.axes[0].get_title(loc="left")


def test_a_diverged_run_does_not_flatten_the_others_and_a_note_says_so(tmp_path: Path) -> None:
    path = run(tmp_path / "a", steps=10)
    MetricsLog(path.parent)(replace(STEP, step=11, tokens=352, loss=5_000.0))
    figure = draw(read_histories([path, run(tmp_path / "b")]))
    assert figure.axes[0].get_ylim()[1] == pytest.approx(1.25 * 5.5)
    assert "losses above 6.88 are not shown" in figure.axes[0].get_title(loc="left")


def test_each_of_many_runs_has_its_own_colour_and_legend_entry(tmp_path: Path) -> None:
    runs = [run(tmp_path / f"run{number}", steps=3, evaluations=number % 2) for number in range(14)]
    figure = draw(read_histories(runs))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["run0: no validation yet", "run1: 2.345 bits per byte"]
    assert len(texts) == 14
    assert len({str(line.get_color()) for line in figure.axes[1].lines}) == 14


def test_a_resumed_run_is_one_curve(tmp_path: Path) -> None:
    path = run(tmp_path / "a", steps=10, evaluations=0)
    log = MetricsLog(path.parent)
    log(RunStarted("a", 6, 12, 12, 32, 1000, "cpu"))  # the state of step 6 was the last saved; later steps are repeated
    for number in range(7, 13):
        log(replace(STEP, step=number, tokens=32 * number))
    (history,) = read_histories([path])
    assert [step.step for step in history.steps] == list(range(1, 13))


def test_the_best_evaluation_has_the_lowest_finite_loss(tmp_path: Path) -> None:
    path = run(tmp_path / "a", steps=3, evaluations=0)
    log = MetricsLog(path.parent)
    assert read_histories([path])[0].best is None
    for step, loss in ((1, 3.0), (2, 2.5), (3, math.nan)):
        log(replace(EVALUATION, step=step, loss=loss))
    best = read_histories([path])[0].best
    assert best is not None
    assert best.step == 2
