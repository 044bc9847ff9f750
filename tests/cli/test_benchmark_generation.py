"""main.py benchmark: tokens per second with and without the cache, and whether the text is the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from transformer import DecoderOnlyTransformer, KVCache, ModelConfig
from transformer.config import PRESETS

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
        assert row["first_difference"] is None
        assert row["speedup"] == pytest.approx(row["uncached"]["seconds"] / row["cached"]["seconds"])
        assert row["first_token_seconds"] > 0
        assert row["cache_bytes"] == row["formula_bytes"]
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
    assert f"{2 * a_layer:,} bytes, as measured" in outcome.out
    assert "KiB = formula" in outcome.out


def test_fewer_key_value_heads_make_a_smaller_cache() -> None:
    from transformer.cli.benchmark.speed import formula_bytes

    modern = PRESETS["modern"].model
    for number, dtype in ((4, torch.float32), (2, torch.bfloat16)):
        cache = KVCache.allocate(modern, 1, 100, dtype=dtype)
        assert formula_bytes(modern, 100, number) == cache.capacity_bytes


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
    from transformer.cli.benchmark.command import BenchmarkOptions, open_or_make_model

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "default", PRESETS["tiny"])  # the real one takes seconds to draw
    model, about = open_or_make_model(BenchmarkOptions())
    assert model.config == PRESETS["tiny"].model
    assert not model.training
    assert "preset default" in about


class Forgetful(DecoderOnlyTransformer):
    """A model with a broken cache: with one, it likes another token best."""

    def next_logits(self, tokens: Tensor, cache: KVCache | None = None, padding: Tensor | None = None) -> Tensor:
        logits = super().next_logits(tokens, cache, padding)
        if cache is not None and cache.length >= 10:
            logits[:, 3] += 1e4
        return logits


def test_a_cache_that_changes_the_text_is_found_and_shouted_about(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformer.cli.benchmark import command as benchmark_generation

    config = ModelConfig(vocab_size=50, d_model=16, num_heads=2, num_layers=1, d_ff=16, max_seq_len=16)
    monkeypatch.setattr(benchmark_generation, "open_or_make_model", lambda _: (Forgetful(config), "a forgetful model"))
    outcome = command("benchmark", "--repeats", "1", "--lengths", "10", "16", "--prompt-tokens", "8")
    assert outcome.status == 2
    assert "CACHE CHANGED THE OUTPUT at length 16, from token 10 on" in outcome.err
    assert "DIFFERENT" in outcome.out
    assert "token for token" not in outcome.out
    assert results(tmp_path)["results"][-1]["first_difference"] == 10


def test_first_difference_counts_from_the_start_of_the_text() -> None:
    from transformer.cli.benchmark.speed import first_difference

    assert first_difference([[1, 2], [1, 2], [1, 2]], start=8) is None
    assert first_difference([[1, 2], [1, 2], [1, 3]], start=8) == 9
    with pytest.raises(ValueError, match="shorter"):
        first_difference([[1, 2], [1]])


def test_speeds_are_medians_over_the_counted_runs() -> None:
    from transformer.cli.benchmark.speed import Run, speed

    measured = speed([Run([], 2.0), Run([], 90.0), Run([], 4.0)], new_tokens=8)
    assert (measured.seconds, measured.tokens_per_second, measured.runs) == (4.0, 2.0, 3)
    assert measured.spread == 22.0  # (90 - 2) / 4: one run met a busy machine, and the median does not mind


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_a_power_is_found_in_the_longer_half_whatever_the_shorter_half_does(exponent: float) -> None:
    from transformer.cli.benchmark.growth import growth

    lengths = [10, 20, 40, 80, 160, 320]
    fit = growth(lengths, [9.0, 9.0, 9.0, *(0.04 * length**exponent for length in lengths[3:])])
    assert fit is not None
    assert (fit.shortest, fit.longest) == (80, 320)
    assert fit.exponent == pytest.approx(exponent)
    assert fit.standard_error == pytest.approx(0, abs=1e-6)
    assert fit.seconds(1000) == pytest.approx(0.04 * 1000**exponent)


def test_the_standard_error_is_that_of_a_regression() -> None:
    from transformer.cli.benchmark.growth import growth

    lengths = np.array([10, 25, 70, 150])
    seconds = np.array([0.5, 1.0, 2.0, 9.0])
    fit = growth(lengths.tolist(), seconds.tolist())  # half of four, but three at least
    (slope, intercept), covariance = np.polyfit(np.log(lengths[1:]), np.log(seconds[1:]), 1, cov="unscaled")
    left = np.log(seconds[1:]) - intercept - slope * np.log(lengths[1:])
    assert fit is not None
    assert fit.exponent == pytest.approx(slope)
    assert fit.standard_error == pytest.approx(float(np.sqrt(covariance[0, 0] * (left**2).sum())))  # 3 - 2 is 1


@pytest.mark.usefixtures("tiny_checkpoint")
def test_exponents_are_told_stored_and_drawn(command: Command, tmp_path: Path) -> None:
    outcome = command("benchmark", "--repeats", "1", "--lengths", "10", "14", "19", "24")
    picture = (tmp_path / OUT / "speed.svg").read_text(encoding="utf-8")
    for kind, field in (("with the cache", "cached"), ("without the cache", "uncached")):
        fit = results(tmp_path)["growth"][field]
        assert (fit["shortest"], fit["longest"]) == (14, 24)
        exponent, error = f"{fit['exponent']:.2f}", f"{fit['standard_error']:.2f}"
        assert f"{kind}, seconds grow as length ** {exponent} (± {error}) from 14 to 24 tokens" in outcome.out
        assert f"<!-- {kind}: exponent {exponent} ± {error} -->" in picture
    assert "An exponent near 1:" in outcome.out


@pytest.mark.usefixtures("tiny_checkpoint")
def test_of_two_lengths_no_exponent_is_told(command: Command, tmp_path: Path) -> None:
    outcome = command("benchmark", "--repeats", "1", "--lengths", "10", "24")
    assert outcome.status == 0
    assert "exponent" not in outcome.out
    assert results(tmp_path)["growth"] == {"cached": None, "uncached": None}


@pytest.mark.usefixtures("tiny_checkpoint")
def test_long_texts_are_written_fewer_times_and_it_is_said(command: Command, tmp_path: Path) -> None:
    outcome = command("benchmark", "--repeats", "3", "--max-seconds", "0", "--lengths", "10", "12")
    assert "without the cache, to save time, not 3x but: 1x 10 tokens, 1x 12 tokens" in outcome.out
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
        (["--preset", "tinny"], "there is no preset 'tinny'; did you mean 'tiny'?"),
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
