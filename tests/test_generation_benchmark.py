"""benchmarks/generation.py at a tiny size: contenders generate the same tokens; the summary is correct."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def prepared() -> dict[str, Any]:
    import generation_contenders

    return generation_contenders.prepare({"quick": True, "max_seq_len": 64})


def test_the_weights_read_per_token_are_every_matrix_once_and_a_row_of_each_table(prepared: dict[str, Any]) -> None:
    attention, feedforward, norm = 32 * 96 + 96 + 32 * 32 + 32, 32 * 64 + 64 + 64 * 32 + 32, 64
    block = attention + feedforward + 2 * norm
    assert prepared["weights_read"] == 257 * 32 + 2 * 32 + 2 * block + norm  # the head is tied to the token embedding
    assert prepared["cache_bytes_a_token"] == 2 * 2 * 32 * 4


def test_all_contenders_with_our_weights_generate_the_same_texts(prepared: dict[str, Any]) -> None:
    import generation_contenders

    texts = [
        {"batch": 1, "new_tokens": 20, "sampling": "greedy"},
        {"batch": 3, "new_tokens": 10, "sampling": "greedy"},
        {"batch": 1, "new_tokens": 5, "sampling": "creative"},
    ]
    fixed = {"shape": prepared["shape"], "prompt_tokens": 8, "texts": texts, "use_cache": True}
    ours = {**fixed, "peer": "ours", "variant": "float32"}
    rows = generation_contenders.write(ours)
    for other in ({**ours, "use_cache": False}, {**fixed, "peer": "transformers", "precision": "float32"}):
        for mine, theirs in zip(rows[:2], generation_contenders.write(other)[:2], strict=True):
            assert mine["ids"] == theirs["ids"]
    assert rows[1]["ids"][0] == rows[0]["ids"][0][:10]
    assert all(row["seconds"] > 0 and row["peak_bytes"] > 10**7 for row in rows)


def test_every_bandwidth_measurement_is_positive() -> None:
    import generation_contenders

    assert min(generation_contenders.bandwidth({"mib": 1}).values()) > 0


def test_without_the_cache_only_the_longest_text_is_generated(prepared: dict[str, Any]) -> None:
    import generation

    options = Namespace(new_tokens=[5, 10, 20], batch=8)
    texts = {one["name"]: list(generation.texts_of(one, options)) for one in generation.all_contenders(prepared)}
    assert texts["ours, no cache"] == ["20"]
    assert texts["ours, float32"] == ["5", "10", "20", "10, balanced", "10, creative", "10, batch 8"]
    for end in ("", ", tuned", ", bfloat16, tuned"):
        assert texts[f"transformers{end}"] == texts["ours, float32"]
        assert texts[f"litgpt{end}"] == ["5", "10", "20", "10, batch 8"]


def test_shares_ratios_and_goals_are_computed_from_the_rounds() -> None:
    from generation_summary import report, summary

    def rounds(*speeds: float) -> list[dict[str, float]]:
        return [{"tokens_per_s": speed, "peak_mib": 100} for speed in speeds]

    prepared = {"variants": {"float32": 4, "int8": 1}, "weights_read": 1000, "cache_bytes_a_token": 10}
    prepared["shape"] = {"position": "learned"}
    runs = {
        "9": {
            "ours, float32": rounds(10, 30, 20),
            "ours, int8": rounds(40, 40, 40),
            "ours, no cache": rounds(2, 2, 2),
            "litgpt": rounds(5, 6, 10),
            "litgpt, bfloat16, tuned": rounds(20, 20, 20),
        },
        "9, balanced": {"ours, float32": rounds(15, 16, 14)},
        "9, batch 2": {"ours, float32": rounds(30, 30, 30)},
    }
    longest = {"ours, float32": [1, 2, 3], "ours, int8": [1, 2, 4], "ours, no cache": [1, 2, 3], "litgpt": [7, 7, 7]}
    bandwidth = [{"sum": 9e4, "dot": 8e4}] * 3
    found = summary(prepared, 8, runs, longest, bandwidth)
    ours = found["texts"]["9"]["ours, float32"]
    assert (ours["tokens_per_s"], ours["lowest"], ours["highest"]) == (20, 10, 30)
    assert ours["allowed_tokens_per_s"] == pytest.approx(9e4 / (4 * 1000 + 10 * 12), abs=0.05)  # 8 to 16 keys: 12
    assert ours["share"] == pytest.approx(20 * 4120 / 9e4, abs=5e-4)
    assert found["texts"]["9"]["ours, int8"]["allowed_tokens_per_s"] == pytest.approx(9e4 / 1120, abs=0.05)
    peer = found["texts"]["9"]["litgpt, bfloat16, tuned"]
    assert peer["allowed_tokens_per_s"] == pytest.approx(9e4 / (2 * 1000 + 5 * 12), abs=0.05)
    batch = found["texts"]["9, batch 2"]["ours, float32"]
    assert batch["allowed_tokens_per_s"] == pytest.approx(2 * 9e4 / (4000 + 2 * 120), abs=0.05)
    assert found["texts"]["9"]["litgpt"]["ours_over_it"] == 2.0  # of 2, 5 and 2: within rounds
    goals = {goal: one["found"] for goal, one in found["goals"].items()}
    assert goals == {
        "over float32 peers": 2.0,
        "over any peer": 1.0,
        "int8 over any peer": 2.0,
        "share of bandwidth": ours["share"],
        "over no cache": 10,
    }
    assert found["differs_from_ours_after"] == {"ours, float32": None, "ours, int8": 2, "ours, no cache": None}
    text = report({**found, "command": "python x", "machine": {"cores": 2}})
    assert "9 new tokens, over float32 peers: goal 2.5, measured 2.00 (missed)" in text
    assert "9 new tokens, balanced, relative to the same contender with greedy: ours, float32 75%" in text
    assert "ours, no cache generates the same text" in text
    assert "ours, int8 differs after 2 equal tokens" in text


@pytest.mark.slow
def test_a_quick_run_writes_a_result_file_and_a_table(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    flags = ["--quick", "--contenders", "ours", "transformers", "--out", str(out)]
    command = [sys.executable, str(BENCHMARKS / "generation.py"), *flags]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    results = json.loads(out.read_text(encoding="utf-8"))
    assert results["command"] == "python benchmarks/generation.py --quick --contenders ours transformers --out out.json"
    single = {name: equal for name, equal in results["differs_from_ours_after"].items() if "bfloat16" not in name}
    assert set(single.values()) == {None}
    assert str(tmp_path) not in out.read_text(encoding="utf-8")
    assert "| transformers, tuned |" in out.with_suffix(".md").read_text(encoding="utf-8")
