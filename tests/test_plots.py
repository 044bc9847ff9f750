"""Loss curves: a picture that holds what the metrics file holds."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from transformer import ModelConfig, TrainConfig
from transformer.config import DataConfig
from transformer.dataset import open_dataset
from transformer.plots import save_loss_curve
from transformer.runtime.metrics import METRICS_FILE, EvalMetrics, Event, MetricsLog, RunStarted, StepMetrics
from transformer.trainer import Trainer

PNG = b"\x89PNG\r\n\x1a\n"
STEP = StepMetrics(1, 1, 5.5, 244.7, 1e-4, 1.25, 32, 1000.0, 0.1)
LOOK = EvalMetrics(1, 1, 5.25, 190.6, 2.345, 100, 0.05)


def run(folder: Path, *, steps: int = 30, looks: int = 3, diverged: bool = False) -> Path:
    """Writes the metrics of a run whose loss falls from 5.5 to about 2."""
    log = MetricsLog(folder)
    log(RunStarted(folder.name, 0, steps, steps, 32, 1000, "cpu"))
    for number in range(1, steps + 1):
        loss = float("nan") if diverged and number > 3 else 2 + 3.5 / number
        log(replace(STEP, step=number, tokens=32 * number, loss=loss))
        if looks and number % (steps // looks) == 0:
            log(replace(LOOK, step=number, loss=loss))
    return log.path


def test_a_png_is_written_where_it_was_asked_for(tmp_path: Path) -> None:
    picture = save_loss_curve([run(tmp_path / "a")], tmp_path / "new" / "folder" / "curve.png")
    assert picture == tmp_path / "new" / "folder" / "curve.png"
    contents = picture.read_bytes()
    assert contents.startswith(PNG)
    width, height = (int.from_bytes(contents[at : at + 4], "big") for at in (16, 20))
    assert width >= 1000
    assert height >= 600
    assert len(contents) > 20_000  # an empty frame of this size takes less


def test_a_picture_of_several_runs_names_each_and_its_score(tmp_path: Path) -> None:
    runs = [run(tmp_path / name) for name in ("checkpoints_demo", "checkpoints_quick")]
    text = save_loss_curve(runs, tmp_path / "curves.svg").read_text(encoding="utf-8")
    assert "<svg" in text
    said = set(re.findall(r"<!-- (.*?) -->", text))
    for name in ("checkpoints_demo", "checkpoints_quick"):
        assert f"{name}: train" in said
        assert f"{name}: validation, 2.345 bits per byte" in said
    assert {"loss (nats a token)", "learning rate", "tokens seen", "perplexity"} <= said


def test_a_pdf_can_be_asked_for(tmp_path: Path) -> None:
    assert save_loss_curve([run(tmp_path / "a")], tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_the_right_axis_reads_perplexity_at_round_numbers(tmp_path: Path) -> None:
    text = save_loss_curve([run(tmp_path / "a")], tmp_path / "a.svg").read_text(encoding="utf-8")
    assert {"10", "20", "50", "100", "200"} <= set(re.findall(r"<!-- (.*?) -->", text))


def points(svg: str, color: str) -> int:
    """Returns how many dots of a colour the picture has."""
    return len(re.findall(rf"<use [^>]*style=\"fill: {color}", svg))


def test_every_evaluation_of_a_run_is_a_dot_on_its_curve(tmp_path: Path) -> None:
    """Evaluations at steps that no log line fell on, such as most epochs' ends, were left out."""
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
    looks: list[int] = []

    def count(event: Event) -> None:
        if isinstance(event, EvalMetrics):
            looks.append(event.step)

    Trainer(config, open_dataset(config.data), [MetricsLog(tmp_path / "run"), count]).fit()
    assert looks == [3, 5, 6, 9, 10, 12, 15]
    svg = save_loss_curve([tmp_path / "run" / METRICS_FILE], tmp_path / "a.svg").read_text(encoding="utf-8")
    legend = 1
    assert points(svg, "#1f77b4") == len(looks) + legend


@pytest.mark.parametrize("settings", [{"looks": 0}, {"steps": 1, "looks": 1}, {"diverged": True}])
def test_unusual_runs_are_drawn_too(tmp_path: Path, settings: dict[str, int]) -> None:
    assert save_loss_curve([run(tmp_path / "a", **settings)], tmp_path / "a.png").read_bytes().startswith(PNG)


def test_a_run_cut_off_in_mid_line_is_drawn(tmp_path: Path) -> None:
    path = run(tmp_path / "a")
    path.write_bytes(path.read_bytes()[:-30])
    assert save_loss_curve([path], tmp_path / "a.png").read_bytes().startswith(PNG)


def test_a_run_without_a_step_is_left_out_beside_one_that_has_some(tmp_path: Path) -> None:
    empty = run(tmp_path / "empty", steps=0, looks=0)
    full = run(tmp_path / "full")
    text = save_loss_curve([empty, full], tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "full: train" in text
    assert "empty: train" not in text


def test_nothing_to_draw_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    empty = run(tmp_path / "empty", steps=0, looks=0)
    with pytest.raises(ValueError, match=r"no training step in .*empty.*: nothing to draw"):
        save_loss_curve([empty], tmp_path / "a.png")
    with pytest.raises(FileNotFoundError):
        save_loss_curve([tmp_path / "none.jsonl"], tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_an_unknown_kind_of_picture_is_an_error_that_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"xyz.*png.*svg"):
        save_loss_curve([run(tmp_path / "a")], tmp_path / "a.xyz")
    assert not (tmp_path / "a.xyz").exists()


def test_drawing_needs_no_display_and_keeps_no_figure_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("MPLBACKEND", "qtagg")
    for number in range(3):
        save_loss_curve([run(tmp_path / str(number))], tmp_path / f"{number}.png")
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []
