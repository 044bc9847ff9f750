"""Token vectors are rows of the table; each kind of position encodes the position of a token."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.bloom.modeling_bloom import _get_alibi_slopes

from transformer import DecoderOnlyTransformer
from transformer.config import ModelConfig
from transformer.embeddings import Embeddings, alibi_bias, alibi_slopes, rotary_table, rotate, scale, sinusoidal_table

Configs = Callable[..., ModelConfig]


def test_a_token_gets_its_row_of_the_table_plus_its_position(tiny_config: Configs) -> None:
    embeddings = Embeddings(tiny_config())
    assert embeddings.position is not None
    x = embeddings(torch.tensor([[3, 5], [5, 3]]), torch.arange(4, 6))
    rows, positions = embeddings.token.weight, embeddings.position.weight
    expected = torch.stack([torch.stack([rows[3] + positions[4], rows[5] + positions[5]]),
                            torch.stack([rows[5] + positions[4], rows[3] + positions[5]])])  # fmt: skip
    torch.testing.assert_close(x, expected, rtol=0, atol=0)


@pytest.mark.parametrize("position", ["rotary", "alibi"])
def test_positions_that_act_in_attention_add_nothing_here(tiny_config: Configs, position: str) -> None:
    embeddings = Embeddings(tiny_config(position=position))
    tokens = torch.tensor([[1, 2, 1]])
    torch.testing.assert_close(embeddings(tokens, torch.arange(3)), embeddings.token.weight[tokens], rtol=0, atol=0)
    assert [name for name, _ in embeddings.named_parameters()] == ["token.weight"]


def test_sinusoidal_positions_are_added_and_not_trained(tiny_config: Configs) -> None:
    config = tiny_config(position="sinusoidal")
    embeddings = Embeddings(config)
    tokens = torch.tensor([[1, 2, 1]])
    table = 0.02 * math.sqrt(2) * sinusoidal_table(config.max_seq_len, config.d_model)
    expected = embeddings.token.weight[tokens] + table[2:5]
    torch.testing.assert_close(embeddings(tokens, torch.arange(2, 5)), expected, rtol=0, atol=0)
    assert list(embeddings.state_dict()) == ["token.weight"]


@torch.no_grad()
@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
@pytest.mark.parametrize("d_model", [128, 256])
def test_two_tokens_at_one_position_are_clearly_different_after_the_first_norm(position: str, d_model: int) -> None:
    """Fresh tokens were once drowned by sinusoidal positions: the cosine of two of them was 0.999."""
    model = DecoderOnlyTransformer(
        vocab_size=200, d_model=d_model, num_heads=4, num_layers=1, d_ff=8, position=position
    ).eval()
    tokens = torch.arange(200)[:, None]  # (200, 1)
    cosines = []
    for column in range(0, 128, 8):
        x = model.layers[0].attention_norm(model.embeddings(tokens, torch.tensor([column])))[:, 0]  # (200, C)
        cosines.append(float(torch.nn.functional.cosine_similarity(x[:-1], x[1:], dim=-1).mean()))
    assert sum(cosines) / len(cosines) < 0.6  # 0.5 if tokens and positions are equally large


def test_the_sinusoidal_table_follows_the_papers_formula() -> None:
    table = sinusoidal_table(50, 6)
    for position in range(50):
        for pair in range(3):
            angle = position / 10_000 ** (2 * pair / 6)
            assert math.isclose(table[position, 2 * pair].item(), math.sin(angle), abs_tol=1e-6)
            assert math.isclose(table[position, 2 * pair + 1].item(), math.cos(angle), abs_tol=1e-6)


def test_a_shift_rotates_every_sinusoidal_pair_by_the_same_angle() -> None:
    pairs = sinusoidal_table(40, 8).double().unflatten(-1, (4, 2))  # (40, 4, 2): sin, cos
    angles = torch.atan2(pairs[..., 0], pairs[..., 1])
    steps = torch.remainder(angles[7:] - angles[:-7], 2 * math.pi)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps), rtol=0, atol=1e-5)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.sampled_from([2, 4, 8]), st.integers(0, 99))
@settings(max_examples=40)
def test_a_rotary_score_depends_on_the_distance_alone(i: int, j: int, shift: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, width, generator=generator, dtype=torch.float64)
    table = rotary_table(61, width, 10_000.0).double()
    here = rotate(q, table[:, i]) @ rotate(k, table[:, j])
    there = rotate(q, table[:, i + shift]) @ rotate(k, table[:, j + shift])
    torch.testing.assert_close(here, there, rtol=0, atol=1e-5)


def test_rotation_keeps_lengths_and_leaves_position_0_alone() -> None:
    x = torch.randn(2, 3, 10, 8, dtype=torch.float64)
    table = rotary_table(10, 8, 500.0).double()
    rotated = rotate(x, table)
    torch.testing.assert_close(rotated.norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=0)
    torch.testing.assert_close(rotated[..., 0, :], x[..., 0, :], rtol=0, atol=0)


def test_rotation_by_hand() -> None:
    quarter = torch.tensor([[math.cos(math.pi / 2)] * 4, [math.sin(math.pi / 2)] * 4])
    rotated = rotate(torch.tensor([1.0, 2.0, 3.0, 4.0]), quarter)  # pairs are (1, 3) and (2, 4)
    torch.testing.assert_close(rotated, torch.tensor([-3.0, -4.0, 1.0, 2.0]), rtol=0, atol=1e-6)


def test_rotary_angles_by_hand() -> None:
    cos, sin = rotary_table(6, 4, 100.0)
    angles = [5 * 1.0, 5 * 100 ** (-2 / 4)] * 2
    torch.testing.assert_close(cos[5], torch.tensor(angles).cos(), rtol=0, atol=1e-6)
    torch.testing.assert_close(sin[5], torch.tensor(angles).sin(), rtol=0, atol=1e-6)


def test_a_fraction_of_the_pairs_rotates_and_the_others_stay() -> None:
    cos, sin = rotary_table(6, 8, 100.0, fraction=0.5)  # 2 of 4 pairs, as if the head had width 4
    angles = torch.tensor([5 * 1.0, 5 * 100 ** (-2 / 4), 0.0, 0.0] * 2)
    torch.testing.assert_close(torch.stack([cos[5], sin[5]]), torch.stack([angles.cos(), angles.sin()]))


def test_scaled_frequencies_by_hand() -> None:
    turns = torch.tensor([8.0, 4.0, 2.5, 1.0, 0.5], dtype=torch.float64)  # in 16 tokens
    turned = scale(turns * 2 * math.pi / 16, "llama3:4:1:4:16") / (turns * 2 * math.pi / 16)
    torch.testing.assert_close(turned.tolist(), [1.0, 1.0, 0.625, 0.25, 0.25])  # half way: (1 + 1/4) / 2
    assert scale(turns, "linear:4").tolist() == (turns / 4).tolist()
    assert scale(turns, "") is turns


def test_alibi_slopes_are_the_papers_for_8_heads() -> None:
    assert alibi_slopes(8).tolist() == [2.0**-n for n in range(1, 9)]


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 25])
def test_alibi_slopes_equal_blooms(heads: int) -> None:
    theirs = _get_alibi_slopes(heads, torch.device("cpu"))
    torch.testing.assert_close(alibi_slopes(heads), theirs, rtol=1e-6, atol=0)


def test_alibi_bias_by_hand() -> None:
    inf = math.inf
    bias = alibi_bias(torch.tensor([1.0, 0.5]), queries=2, keys=3)
    assert bias.tolist() == [[[-1.0, 0.0, -inf], [-2.0, -1.0, 0.0]], [[-0.5, 0.0, -inf], [-1.0, -0.5, 0.0]]]


@given(st.integers(1, 6), st.integers(0, 6), st.integers(1, 5))
@settings(max_examples=30)
def test_alibi_bias_is_slope_times_distance_and_excludes_later_keys(queries: int, before: int, heads: int) -> None:
    keys = before + queries
    slopes = alibi_slopes(heads)
    bias = alibi_bias(slopes, queries, keys)
    for head in range(heads):
        for i in range(queries):
            for j in range(keys):
                distance = before + i - j
                expected = -float(slopes[head]) * distance if distance >= 0 else -math.inf
                assert bias[head, i, j] == pytest.approx(expected, abs=1e-6)


def test_dropout_zeroes_token_vectors_in_training_only(tiny_config: Configs) -> None:
    embeddings = Embeddings(tiny_config(dropout=0.5, d_model=64))
    tokens = torch.arange(12)[None]
    dropped = (embeddings(tokens, tokens) == 0).float().mean().item()
    assert 0.4 < dropped < 0.6
    assert not (embeddings.eval()(tokens, tokens) == 0).any()


def test_a_token_outside_the_vocabulary_is_an_error(tiny_config: Configs) -> None:
    with pytest.raises(IndexError):
        Embeddings(tiny_config())(torch.tensor([[17]]), torch.arange(1))
