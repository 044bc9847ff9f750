"""On a model whose induction head is set by hand, every tool finds exactly its two heads and their path."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor

from transformer import DecoderOnlyTransformer
from transformer.interpret.ablation import ablate_all, all_parts
from transformer.interpret.attribution import attribute
from transformer.interpret.heads import head_habits
from transformer.interpret.in_context import repeated_rows, token_losses
from transformer.interpret.induction_by_hand import CERTAINTY, START, A, B, induction_model
from transformer.interpret.lens import logit_lens
from transformer.interpret.patching import logit_difference, patch_heads, patch_positions

OTHERS = {(layer, head) for layer in range(2) for head in range(2)} - {A, B}
CLEAN, CORRUPT = torch.tensor([[START, 8, 5, 3, 7, 2, 5]]), torch.tensor([[START, 8, 6, 3, 7, 2, 5]])
"""The token after 5 was 3; in the second text there is no 5 before."""


@functools.cache
def model() -> DecoderOnlyTransformer:
    return induction_model(vocab_size=12, max_seq_len=24)


def rows(count: int = 4, length: int = 8) -> Tensor:
    """START, and then repeated random tokens, (count, 1 + 2 * length)."""
    tokens = repeated_rows(torch.arange(1, 12), count, length, torch.Generator().manual_seed(0))
    return torch.cat([torch.full((count, 1), START), tokens], dim=1)


def test_it_predicts_what_followed_this_token_before_and_nothing_else() -> None:
    tokens = rows()
    logits = model()(tokens)
    expected = torch.zeros_like(logits)
    for row in range(len(tokens)):
        for position in range(9, 16):  # the second half, but for its last token, which nothing follows
            expected[row, position, tokens[row, position - 7]] = CERTAINTY
    torch.testing.assert_close(logits[:, :16], expected[:, :16], rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_first_half_is_a_guess_and_the_second_is_certain() -> None:
    losses = token_losses(model(), rows())
    assert losses[:, :9].tolist() == [[pytest.approx(math.log(12), abs=1e-5)] * 9] * 4
    certain = math.log(1 + 11 * math.exp(-CERTAINTY))
    torch.testing.assert_close(losses[:, 9:], torch.full((4, 7), certain).double(), rtol=0, atol=1e-5)


def test_the_habits_of_its_two_heads_are_found_and_the_others_attend_evenly() -> None:
    habits = head_habits(model(), rows())
    for name, (layer, head) in {"previous token": A, "induction": B}.items():
        habit = habits[name]
        assert habit.score[layer, head] == pytest.approx(1, abs=1e-6)
        for other in OTHERS:
            assert habit.score[other] == pytest.approx(habit.even, abs=1e-6)
    assert habits["induction"].score[A] < 0.001
    assert habits["previous token"].score[B] == pytest.approx(1 / 16)  # at position 1, where it rests at START


def test_without_either_head_the_prediction_is_lost_and_without_any_other_part_nothing() -> None:
    parts = all_parts(model())
    for by, left in (("zero", math.log(12)), ("mean", 2.2)):
        for part, ablation in zip(parts, ablate_all(model(), rows(), parts, by), strict=True):  # type: ignore[arg-type]
            second = ablation.ablated[:, 9:]  # the tokens that the first half determines
            head = (int(part[0].split(".")[1]), part[1])
            if head in (A, B):
                assert second.mean() >= left - 1e-5, (part, by)
                assert ablation.change > 4 * ablation.error
            else:
                assert torch.equal(ablation.ablated, ablation.plain), (part, by)
    resampled = ablate_all(model(), rows(), parts, "resample")
    changed = {
        (int(name.split(".")[1]), head) for (name, head), one in zip(parts, resampled, strict=True) if one.change
    }
    assert changed == {A, B}


def test_attribution_names_the_induction_head_alone() -> None:
    shares = attribute(model(), CLEAN, target=3, versus=4)
    assert shares.ranked()[0] == ("head 1.0", pytest.approx(CERTAINTY, abs=1e-4))
    assert all(abs(share) < 1e-4 for _, share in shares.ranked()[1:])


def test_the_lens_reads_the_prediction_after_the_last_block_only() -> None:
    *earlier, last = logit_lens(model(), CLEAN, count=1)
    assert (int(last.ids[0, -1, 0]), float(last.probabilities[0, -1, 0])) == (3, pytest.approx(1, abs=1e-3))
    assert all(reading.probabilities[0, -1, 0] == pytest.approx(1 / 12, abs=1e-6) for reading in earlier)


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_patching_recovers_the_path_and_nothing_else(direction: str) -> None:
    arguments = (model(), CLEAN, CORRUPT, logit_difference(3, 4))
    path = torch.zeros(3, 7)
    path[0, 2] = path[1, 3] = path[2, 6] = 1  # the token 5, the token after it, the last token
    found = patch_positions(*arguments, direction=direction)  # type: ignore[arg-type]
    torch.testing.assert_close(found, path, rtol=0, atol=1e-4)
    heads = torch.zeros(2, 2, 7)
    heads[(*A, 3)] = heads[(*B, 6)] = 1  # A copies the 5 to the token after it, B from there to the last
    found = patch_heads(*arguments, by_position=True, direction=direction)  # type: ignore[arg-type]
    torch.testing.assert_close(found, heads, rtol=0, atol=1e-4)
    found = patch_heads(*arguments, direction=direction)  # type: ignore[arg-type]
    torch.testing.assert_close(found, heads.sum(-1), rtol=0, atol=1e-4)
    for what, place in (("attention.output", [(0, 3), (1, 6)]), ("feedforward.output", [])):
        expected = torch.zeros(2, 7)
        for index in place:
            expected[index] = 1
        found = patch_positions(*arguments, what=what, direction=direction)  # type: ignore[arg-type]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
