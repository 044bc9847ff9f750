"""main.py demo-sampling: the strategies side by side."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from transformer.config import SAMPLING_PRESETS
from transformer.text import load_tokenizer

Command = Callable[..., Any]


def section(text: str, temperature: str) -> str:
    """The part of the output that is about one temperature."""
    parts = re.split(r"^temperature (\S+)", text, flags=re.MULTILINE)  # what is before, 0.7, its part, 1, its part, ...
    return parts[parts.index(temperature) + 1]


def row(text: str, name: str) -> list[str]:
    """The words of the line that begins with `name`."""
    return next(line for line in text.splitlines() if line.startswith(name)).split()[1:]


def test_entropy_of_known_distributions_by_hand() -> None:
    from distribution import entropy_bits

    assert entropy_bits(torch.tensor([1.0, 0.0, 0.0])) == 0.0
    assert entropy_bits(torch.tensor([0.5, 0.5])) == pytest.approx(1.0)
    assert entropy_bits(torch.tensor([0.5, 0.25, 0.125, 0.125])) == pytest.approx(1.75)  # 1/2 + 2/4 + 3/8 + 3/8
    assert str(entropy_bits(torch.tensor([1.0]))) == "0.0"  # not -0.0, which a table would show


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=40))
def test_entropy_is_between_certainty_and_all_alike(logits: list[float]) -> None:
    from distribution import entropy_bits

    probs = torch.tensor(logits, dtype=torch.float64).softmax(0)
    uniform = torch.full_like(probs, 1 / len(probs))
    assert -1e-9 <= entropy_bits(probs) <= entropy_bits(uniform) + 1e-9
    assert 2 ** entropy_bits(uniform) == pytest.approx(len(probs))


def test_a_bar_grows_with_its_share_and_shows_the_smallest() -> None:
    from distribution import bar

    assert [bar(share, width=2) for share in (0, 1e-6, 0.25, 0.5, 0.75, 1)] == ["", "▏", "▌", "█", "█▌", "██"]


def test_a_token_is_named_by_its_text_or_else_its_bytes() -> None:
    from distribution import token_name

    tokenizer = load_tokenizer("byte")
    assert token_name(tokenizer, ord("a")) == "'a'"
    assert token_name(tokenizer, ord("\n")) == r"'\n'"
    assert token_name(tokenizer, 0xC3) == r"b'\xc3'"
    assert token_name(tokenizer, 0x1B) == r"'\x1b'"  # an escape sequence must not reach the terminal
    assert token_name(tokenizer, tokenizer.eot_id) == "'<|endoftext|>'"


def test_the_fixed_distribution_is_one() -> None:
    from sampling_comparison import NEXT_TOKENS

    shares = torch.tensor(list(NEXT_TOKENS.values()), dtype=torch.float64)
    assert_close(shares.sum(), torch.tensor(1.0, dtype=torch.float64), rtol=0, atol=1e-12)
    assert len(NEXT_TOKENS) == 12
    assert shares.tolist() == sorted(shares.tolist(), reverse=True)


def test_each_strategy_keeps_what_it_should(command: Command) -> None:
    # At temperature 1: all 12; the 6 likeliest; 0.32 + 0.18 + ... reaches 0.9 with the 7th; of the 6 likeliest,
    # which hold 0.87, the first five hold 0.81 / 0.87 > 0.9.
    outcome = command("demo-sampling")
    assert outcome.status == 0
    even = section(outcome.out, "1")
    assert row(even, "kept") == ["1", "12", "6", "7", "5"]
    assert row(even, "bits")[0] == "0.00"
    assert row(even, "effective")[0] == "1.0"
    assert row(even, "mat")[0::2] == ["100.0%", "32.0%", "36.8%", "34.8%", "39.5%"]


def test_heat_raises_entropy_and_leaves_greedy_alone(command: Command) -> None:
    out = command("demo-sampling", "--temperatures", "0.5", "1", "2").out
    cold, even, hot = ([float(bits) for bits in row(section(out, t), "bits")] for t in ("0.5", "1", "2"))
    assert cold[0] == even[0] == hot[0] == 0
    assert all(a < b < c for a, b, c in zip(cold[1:], even[1:], hot[1:], strict=True))


def test_draws_come_from_the_tokens_that_stay_and_repeat_with_the_seed(command: Command) -> None:
    first, again = (command("demo-sampling", "--seed", "5", "--temperatures", "1.5").out for _ in range(2))
    assert first == again
    draws = first[first.index("12 draws") :]
    assert row(draws, "greedy") == ["mat"] * 12
    assert len(row(draws, "multinomial")) == 12
    assert set(row(draws, "top_k ")) <= {"mat", "floor", "sofa", "bed", "chair", "table"}
    assert command("demo-sampling", "--seed", "6", "--temperatures", "1.5").out != first


def test_output_is_plain_text_without_a_terminal(command: Command) -> None:
    out = command("demo-sampling").out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 110
    for strategy in ("greedy", "multinomial", "top_k", "top_p", "top_k_top_p"):
        assert f"\n{strategy}: " in out  # when to use it


@pytest.mark.usefixtures("tiny_checkpoint")
def test_with_a_model_its_own_distribution_is_shown(command: Command) -> None:
    outcome = command("demo-sampling", "--with-model", "--prompt", "The [bold]king", "--max-new-tokens", "5")
    assert outcome.status == 0
    assert "model_epoch_3_byte.pt" in outcome.out.replace("\n", "")
    assert "245 others" in outcome.out  # 257 ids, 12 rows
    assert row(section(outcome.out, "1"), "kept")[:3] == ["1", "257", "6"]
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
