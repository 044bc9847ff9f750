"""main.py benchmark: tokens per second with and without the cache, and whether the text is the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from transformer import DecoderOnlyTransformer, ModelConfig
from transformer.presets import PRESETS

Command = Callable[..., Any]
OUT = Path("runs/benchmark_generation")


def results(folder: Path) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads((folder / OUT / "results.json").read_text(encoding="utf-8"))
    return contents


@pytest.mark.usefixtures("tiny_checkpoint")
def test_the_latest_checkpoint_is_measured_up_to_its_context(command: Command, tmp_path: Path) -> None:
    outcome = command("benchmark", "--repeats", "1")
    assert outcome.status == 0
    assert "model_epoch_3_byte.pt" in outcome.out
    assert "the same, token for token" in outcome.out
    contents = results(tmp_path)
    assert contents["command"] == "main.py benchmark --repeats 1"
    assert contents["config"]["max_seq_len"] == 24
    assert [row["length"] for row in contents["results"]] == [10, 11, 13, 15, 16, 19, 21, 24]
    for row in contents["results"]:
        assert row["new_tokens"] == row["length"] - 1
        assert row["same_text"]
        assert row["speedup"] == pytest.approx(row["uncached"]["seconds"] / row["cached"]["seconds"])
        assert row["first_token_seconds"] > 0
        for kind in ("cached", "uncached"):
            assert row[kind]["runs"] == 1
            assert row[kind]["tokens_per_second"] == pytest.approx(row["new_tokens"] / row[kind]["seconds"])


@pytest.mark.usefixtures("tiny_checkpoint")
def test_a_picture_is_drawn_and_out_says_where(command: Command, tmp_path: Path) -> None:
    outcome = command("benchmark", "--repeats", "1", "--lengths", "10", "12", "--out", "elsewhere/here")
    assert outcome.status == 0
    assert (tmp_path / "elsewhere/here/speed.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "elsewhere/here/speed.svg").read_text(encoding="utf-8")
    assert (tmp_path / "elsewhere/here/results.json").is_file()
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("tiny_checkpoint")
def test_cache_bytes_are_the_documented_formula(command: Command, tmp_path: Path) -> None:
    outcome = command("benchmark", "--repeats", "1", "--lengths", "20")
    (row,) = results(tmp_path)["results"]
    a_layer = 2 * 2 * 20 * 8 * 4  # 2 x heads x seq_len x d_k x bytes per number
    assert row["cache_bytes"] == 2 * a_layer
    assert f"{2 * a_layer / 1024:.1f} KiB" in outcome.out


def test_without_a_checkpoint_a_fresh_model_of_a_preset_is_measured(command: Command, tmp_path: Path) -> None:
    outcome = command("benchmark", "--preset", "tiny", "--max-seq-len", "40", "--lengths", "9", "40", "--repeats", "1")
    assert outcome.status == 0
    assert "fresh model with random weights (preset tiny" in outcome.out
    contents = results(tmp_path)
    assert contents["config"] == {**PRESETS["tiny"].model.to_dict(), "max_seq_len": 40}
    assert [row["length"] for row in contents["results"]] == [9, 40]


def test_with_neither_checkpoint_nor_preset_it_is_the_default_preset(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from transformer.cli.benchmark.command import open_or_make_model
    from transformer.cli.benchmark.options import BenchmarkOptions

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "default", PRESETS["tiny"])  # the real one takes seconds to draw
    model, about = open_or_make_model(BenchmarkOptions())
    assert model.config == PRESETS["tiny"].model
    assert not model.training
    assert "preset default" in about


class Forgetful(DecoderOnlyTransformer):
    """A model with a broken cache: with one, it generates another token at position 10."""

    def generate(self, *arguments: Any, **settings: Any) -> Tensor:
        ids = super().generate(*arguments, **settings)
        if settings["use_cache"] and ids.shape[1] > 10:
            ids[:, 10] = (ids[:, 10] + 1) % self.config.vocab_size
        return ids


def test_a_cache_that_changes_the_text_is_reported_as_an_error(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformer.cli.benchmark import command as benchmark

    config = ModelConfig(vocab_size=50, d_model=16, num_heads=2, num_layers=1, d_ff=16, max_seq_len=16)
    monkeypatch.setattr(benchmark, "open_or_make_model", lambda _: (Forgetful(config), "a forgetful model"))
    outcome = command("benchmark", "--repeats", "1", "--lengths", "10", "16", "--prompt-tokens", "8")
    assert outcome.status == 2
    assert "CACHE CHANGED THE OUTPUT at length 16" in outcome.err
    assert "DIFFERENT" in outcome.out
    assert "token for token" not in outcome.out
    assert not results(tmp_path)["results"][-1]["same_text"]


@pytest.mark.usefixtures("tiny_checkpoint")
def test_long_texts_are_repeated_less_often(command: Command, tmp_path: Path) -> None:
    command("benchmark", "--repeats", "3", "--max-seconds", "0", "--lengths", "10", "12")
    assert [row[kind]["runs"] for row in results(tmp_path)["results"] for kind in ("cached", "uncached")] == [1] * 4


@pytest.mark.usefixtures("tiny_checkpoint")
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lengths", "25"], "length 25 must be above prompt_tokens=1 and at most max_seq_len=24"),
        (["--lengths", "8", "--prompt-tokens", "8"], "length 8 must be above prompt_tokens=8"),
        (["--prompt-tokens", "24"], "length 24 must be above prompt_tokens=24"),
        (["--max-seconds", "-1"], "max_seconds=-1.0 must not be below 0"),
        (["--max-seconds", "nan"], "max_seconds=nan must not be below 0"),
        (["--repeats", "0"], "repeats and prompt_tokens must be at least 1"),
        (
            ["--preset", "tinny"],
            "there is no preset 'tinny'; one of default, quick, tiny, demo, induction, gpt2, modern; "
            "did you mean 'tiny'?",
        ),
        (["--preset", "tiny", "--max-seq-len", "-3"], "max_seq_len=-3 must be above 0"),
        (["--checkpoint", "x.pt", "--preset", "tiny"], "leave them out to measure a --checkpoint"),
        (["--checkpoint", "x.pt"], "there is no checkpoint x.pt"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(command: Command, flags: list[str], message: str, tmp_path: Path) -> None:
    outcome = command("benchmark", *flags)
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert message in outcome.err
    assert not (tmp_path / "runs").exists()
