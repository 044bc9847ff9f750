"""main.py demo-sampling: the strategies side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from transformer.config import SAMPLING_PRESETS
from transformer.text import load_tokenizer

pytestmark = pytest.mark.usefixtures("plain_pictures")

Command = Callable[..., Any]


def row(text: str, name: str) -> list[str]:
    """The words of the line that begins with `name`."""
    return next(line for line in text.splitlines() if line.startswith(name)).split()[1:]


def test_a_bar_grows_with_its_share_and_shows_the_smallest() -> None:
    from transformer.cli.sampling.distribution import bar

    assert [bar(share, width=2) for share in (0, 1e-6, 0.25, 0.5, 0.75, 1)] == ["", "▏", "▌", "█", "█▌", "██"]


def test_a_token_is_named_by_its_text_or_else_its_bytes() -> None:
    from transformer.cli.sampling.distribution import token_name

    tokenizer = load_tokenizer("byte")
    assert token_name(tokenizer, ord("a")) == "'a'"
    assert token_name(tokenizer, ord("\n")) == r"'\n'"
    assert token_name(tokenizer, 0xC3) == r"b'\xc3'"
    assert token_name(tokenizer, 0x1B) == r"'\x1b'"  # an escape sequence must not reach the terminal
    assert token_name(tokenizer, tokenizer.eot_id) == "'<|endoftext|>'"


def test_the_fixed_distribution_is_one() -> None:
    from transformer.cli.sampling.distribution import NEXT_TOKENS

    shares = torch.tensor(list(NEXT_TOKENS.values()), dtype=torch.float64)
    assert_close(shares.sum(), torch.tensor(1.0, dtype=torch.float64), rtol=0, atol=1e-12)
    assert len(NEXT_TOKENS) == 12
    assert shares.tolist() == sorted(shares.tolist(), reverse=True)


def test_each_way_keeps_what_it_should(command: Command) -> None:
    # Of 12 tokens: the 8 likeliest; 0.32 + 0.18 + ... reaches 0.9 with the 7th; of the 8 likeliest, which hold 0.95,
    # the first 6 hold 0.87 / 0.95 > 0.9; at least 0.4 * 0.32 have 3. The penalty keeps all, but "mat" is in the text.
    outcome = command("demo-sampling", "--temperatures", "1")
    assert outcome.status == 0
    assert row(outcome.out, "kept") == ["1", "12", "8", "7", "6", "3", "12"]
    assert row(outcome.out, "bits")[0] == "0.00"
    assert row(outcome.out, "effective")[0] == "1.0"
    assert row(outcome.out, "mat")[0::2] == ["100.0%", "32.0%", "33.7%", "34.8%", "36.8%", "50.8%", "26.8%"]


def columns(temperature: float, seed: int = 1) -> list[Any]:
    from transformer.cli.sampling.distribution import fixed_distribution
    from transformer.cli.sampling.options import SamplingComparisonOptions
    from transformer.cli.sampling.table import columns_of

    logits, text, _ = fixed_distribution()
    return columns_of(logits, text, SamplingComparisonOptions().strategies(temperature), seed)


def test_heat_raises_entropy_and_leaves_greedy_alone() -> None:
    cold, even, hot = ([column.bits for column in columns(temperature)] for temperature in (0.5, 1, 2))
    assert cold[0] == even[0] == hot[0] == 0
    assert all(a < b < c for a, b, c in zip(cold[1:], even[1:], hot[1:], strict=True))


def test_draws_repeat_with_the_seed() -> None:
    first, again, other = ([column.draws for column in columns(1.5, seed)] for seed in (5, 5, 6))
    assert first == again
    assert first[0] == other[0]  # greedy
    assert all(mine != others for mine, others in zip(first[1:], other[1:], strict=True))


def test_draws_come_from_the_tokens_that_stay(command: Command) -> None:
    out = command("demo-sampling", "--seed", "5", "--temperatures", "1.5").out
    draws = out[out.index("12 samples") :]
    assert row(draws, "greedy") == ["mat"] * 12
    assert len(row(draws, "multinomial")) == 12
    assert set(row(draws, "top_k 8")[1:]) <= {"mat", "floor", "sofa", "bed", "chair", "table", "roof", "fence"}


def test_output_is_plain_text_without_a_terminal(command: Command) -> None:
    out = command("demo-sampling", "--temperatures", "1").out
    assert "\x1b" not in out
    table = out[out.index("temperature 1") : out.index("12 samples")]
    assert max(map(len, table.splitlines())) <= 80
    for way in ("greedy", "multinomial", "top_k", "top_p", "top_k_top_p", "min_p", "repetition_penalty"):
        assert f"\n{way}: " in out  # when to use it


def test_the_picture_and_the_numbers_are_written_where_asked(
    command: Command, tmp_path: Path, plain_pictures: pytest.MonkeyPatch
) -> None:
    plain_pictures.undo()
    out = command("demo-sampling", "--temperatures", "0", "1", "--out", "deep/folder", "--top-k", "20").out
    assert "top_k=20 keeps all 12 tokens of the vocabulary" in out
    written = {path.name: path for path in (tmp_path / "deep/folder").iterdir()}
    assert set(written) == {"stages.png", "stages.svg", "results.json"}
    results = json.loads(written["results.json"].read_text())
    assert [result["temperature"] for result in results["results"]] == [0, 1]
    cold, even = (result["columns"] for result in results["results"])
    assert [column["kept"] for column in cold] == [1] * 7
    assert even[1]["bits"] == pytest.approx(2.90, abs=0.005)
    assert even[1]["tokens"][0] == {"id": 0, "text": "mat", "probability": pytest.approx(0.32)}


@pytest.mark.usefixtures("tiny_checkpoint")
def test_with_a_model_its_own_distribution_is_shown(command: Command) -> None:
    flags = ["--prompt", "The [bold]king", "--max-new-tokens", "5", "--temperatures", "1"]
    outcome = command("demo-sampling", "--with-model", *flags)
    assert outcome.status == 0
    assert "model_epoch_3_byte.pt" in outcome.out.replace("\n", "")
    assert "245 others" in outcome.out  # 257 ids, 12 rows
    assert row(outcome.out, "kept")[:3] == ["1", "257", "8"]
    for preset in SAMPLING_PRESETS:
        assert f"\n{preset} (strategy" in outcome.out
    assert outcome.out.count("The [bold]king") == 1 + len(SAMPLING_PRESETS)  # not eaten as a colour


def test_a_prompt_longer_than_the_context_and_an_empty_one_are_fine(command: Command, tiny_checkpoint: Path) -> None:
    for prompt in ("x" * 200, ""):
        flags = ["--with-model", "--checkpoint", str(tiny_checkpoint), "--max-new-tokens", "3", "--temperatures", "1"]
        assert command("demo-sampling", "--prompt", prompt, *flags).status == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--top-p", "1.5"], "top_p=1.5 must be above 0 and at most 1"),
        (["--top-k", "0"], "top_k=0 must be above 0"),
        (["--min-p", "2"], "min_p=2.0 must be from 0 to 1"),
        (["--repetition-penalty", "0"], "repetition_penalty=0.0 must be from"),
        (["--temperatures", "-1"], "temperature=-1.0 must not be below 0"),
        (["--temperatures"], "at least one temperature"),
        (["--seed", "-1"], "seed=-1"),
        (["--prompt", "x"], "add --with-model"),
        (["--with-model"], "no checkpoint found: train one first"),
        (["--top-kk", "3"], "did you mean --top-k?"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(command: Command, flags: list[str], message: str) -> None:
    outcome = command("demo-sampling", *flags)
    assert outcome.status == 2
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1
    assert message in outcome.err


def test_every_filter_of_the_picture_removes_tokens_at_every_temperature() -> None:
    """The panel of min_p was equal to the panel of top_p."""
    from transformer.cli.sampling.distribution import fixed_distribution
    from transformer.cli.sampling.options import SamplingComparisonOptions
    from transformer.reporting.sampling_stages import stages

    options = SamplingComparisonOptions()
    logits, text, _ = fixed_distribution()
    for temperature in options.temperatures:
        kept = [int((probs > 0).sum()) for _, probs in stages(logits, options.all_at_once(temperature), text)][-4:]
        assert len(set(kept)) == 4, (temperature, kept)
