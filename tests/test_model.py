"""The model as a whole: causal, tied, started as GPT-2 is, and able to learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer import ConfigError, DecoderOnlyTransformer, KVCache, ModelConfig
from transformer.config import IGNORE
from transformer.loss import next_token_loss
from transformer.presets import PRESETS
from variants import variants

Configs = Callable[..., ModelConfig]
Models = Callable[..., DecoderOnlyTransformer]

POSITIONS = ["learned", "sinusoidal", "rotary", "alibi"]
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_future_tokens_cannot_change_past_logits(tiny_model: Models, position: str, norm: str) -> None:
    model = tiny_model(position=position, norm=norm, num_kv_heads=2)
    before = model(TOKENS)
    for first_changed in range(1, 8):
        changed = TOKENS.clone()
        changed[:, first_changed:] = 16 - changed[:, first_changed:]
        after = model(changed)
        torch.testing.assert_close(after[:, :first_changed], before[:, :first_changed], rtol=0, atol=1e-10)
        assert not torch.allclose(after[:, first_changed], before[:, first_changed])


@given(settings_=variants(), chunks=st.lists(st.integers(1, 4), min_size=1, max_size=3), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_with_the_settings_of_every_family_cached_equals_uncached_and_causal(
    tiny_model: Models, settings_: dict[str, Any], chunks: list[int], seed: int
) -> None:
    model = tiny_model(seed=seed, **settings_)
    tokens = torch.randint(17, (2, sum(chunks)), generator=torch.Generator().manual_seed(seed))
    whole = model(tokens)
    cache = model.allocate_cache(2)
    cached = torch.cat([model(chunk, cache) for chunk in tokens.split(chunks, dim=1)], dim=1)
    torch.testing.assert_close(cached, whole, rtol=1e-9, atol=1e-9)
    last = torch.cat([tokens[:, :-1], 16 - tokens[:, -1:]], dim=1)
    torch.testing.assert_close(model(last)[:, :-1], whole[:, :-1], rtol=0, atol=1e-10)
    attended = model.attention_weights(tokens)
    torch.testing.assert_close(sum(attended).sum(-1), torch.full((2, 4, sum(chunks)), 2.0, dtype=torch.float64))  # type: ignore[call-overload]


@given(variants())
@settings(max_examples=20)
def test_with_the_settings_of_every_family_all_parameters_get_a_gradient(
    tiny_model: Models, settings_: dict[str, Any]
) -> None:
    model = tiny_model(**settings_)
    nats, _ = model.loss(TOKENS[:, :-1], TOKENS[:, 1:])
    for name, gradient in zip(
        dict(model.named_parameters()), torch.autograd.grad(nats, list(model.parameters())), strict=True
    ):
        assert gradient.any(), name


@pytest.mark.parametrize("position", POSITIONS)
def test_no_gradient_flows_back_from_the_past_to_the_future(tiny_model: Models, position: str) -> None:
    model = tiny_model(position=position)
    seen: list[torch.Tensor] = []
    hook = model.embeddings.register_forward_hook(lambda *call: seen.append(call[-1]))
    logits = model(TOKENS)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), seen[0])
    assert (gradient[:, 4:] == 0).all()
    assert (gradient[:, :4] != 0).any(-1).all()


@pytest.mark.parametrize("position", POSITIONS)
def test_the_order_of_tokens_matters(tiny_model: Models, position: str) -> None:
    model = tiny_model(position=position, num_layers=1)  # deeper, the causal mask alone would distinguish orders
    swapped = TOKENS[:, [1, 0, *range(2, 8)]]
    assert not torch.allclose(model.next_logits(swapped), model.next_logits(TOKENS), atol=1e-4)


def test_rows_of_a_batch_do_not_mix(tiny_model: Models) -> None:
    model = tiny_model()
    alone = torch.cat([model(row[None]) for row in TOKENS])
    torch.testing.assert_close(model(TOKENS), alone, rtol=1e-10, atol=1e-10)


def test_logits_are_hidden_vectors_compared_with_every_row(tiny_model: Models) -> None:
    model = tiny_model(tie_embeddings=False)
    hidden = model.hidden(TOKENS)
    assert hidden.shape == (2, 8, 16)
    torch.testing.assert_close(model(TOKENS), hidden @ model.head.weight.T, rtol=1e-12, atol=1e-12)


def test_next_logits_are_the_last_row(tiny_model: Models) -> None:
    model = tiny_model()
    torch.testing.assert_close(model.next_logits(TOKENS), model(TOKENS)[:, -1], rtol=1e-10, atol=1e-10)
    cache = KVCache.allocate(model.config, 2, dtype=torch.float64)
    model.next_logits(TOKENS[:, :5], cache)
    torch.testing.assert_close(model.next_logits(TOKENS[:, 5:], cache), model(TOKENS)[:, -1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("position", POSITIONS)
def test_more_than_max_seq_len_tokens_are_refused(tiny_model: Models, position: str) -> None:
    model = tiny_model(position=position)
    model(torch.zeros(1, 12, dtype=torch.int64))
    with pytest.raises(ValueError, match="13 tokens do not fit the context of max_seq_len=12"):
        model(torch.zeros(1, 13, dtype=torch.int64))


def test_tied_embeddings_are_one_tensor_counted_once(tiny_config: Configs) -> None:
    tied = DecoderOnlyTransformer(tiny_config())
    untied = DecoderOnlyTransformer(tiny_config(tie_embeddings=False))
    assert tied.head.weight is tied.embeddings.token.weight
    assert untied.head.weight.data_ptr() != untied.embeddings.token.weight.data_ptr()
    assert tied.parameter_counts()["head"] == 0
    assert untied.parameter_counts()["head"] == 17 * 16
    for model in (tied, untied):
        assert sum(model.parameter_counts().values()) == sum(p.numel() for p in model.parameters())


def test_tied_embeddings_stay_tied_when_loaded_and_moved(tiny_config: Configs) -> None:
    model = DecoderOnlyTransformer(tiny_config())
    other = DecoderOnlyTransformer(tiny_config())
    other.load_state_dict(model.state_dict())
    other.double()
    assert other.head.weight is other.embeddings.token.weight
    torch.testing.assert_close(other(TOKENS).float(), model(TOKENS), rtol=1e-4, atol=1e-5)


def test_the_parameters_by_hand(tiny_config: Configs) -> None:
    counts = DecoderOnlyTransformer(tiny_config()).parameter_counts()
    block = (16 * 48 + 48) + (16 * 16 + 16) + (16 * 24 + 24) + (24 * 16 + 16) + 2 * (2 * 16)
    assert counts == {"embeddings": 17 * 16 + 12 * 16, "blocks": 2 * block, "final_norm": 32, "head": 0}


@pytest.mark.parametrize("position", POSITIONS)
def test_weights_start_as_gpt_2s_do(position: str) -> None:
    model = DecoderOnlyTransformer(
        vocab_size=500, d_model=128, num_heads=4, num_layers=8, d_ff=512, max_seq_len=64, position=position
    )
    for name, parameter in model.named_parameters():
        if "norm" in name:
            expected = 1.0 if name.endswith("weight") else 0.0
            assert (parameter == expected).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:
            scaled = name.endswith(("attention.out.weight", "feedforward.down.weight"))
            std = 0.02 / math.sqrt(2 * 8) if scaled else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.05), name
            assert parameter.mean().item() == pytest.approx(0.0, abs=0.03 * 0.02), name


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("vocab_size", [300, 2_500])
def test_the_first_loss_is_about_the_logarithm_of_the_vocabulary(position: str, vocab_size: int) -> None:
    model = DecoderOnlyTransformer(
        vocab_size=vocab_size, d_model=64, num_heads=4, num_layers=2, d_ff=128, max_seq_len=32, position=position
    ).eval()
    tokens = torch.randint(0, vocab_size, (8, 33))
    nats, count = model.loss(tokens[:, :-1], tokens[:, 1:])
    assert int(count) == 8 * 32
    assert (nats / count).item() == pytest.approx(math.log(vocab_size), abs=0.1)


def test_the_same_seed_gives_the_same_weights(tiny_config: Configs) -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(7)
        models.append(DecoderOnlyTransformer(tiny_config()))
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize(
    "settings",
    [{}, {"position": "rotary", "norm": "rmsnorm", "activation": "swiglu", "bias": False, "num_kv_heads": 2},
     {"position": "alibi", "tie_embeddings": False, "activation": "relu"}],
)  # fmt: skip
def test_a_tiny_model_memorises_one_batch(tiny_config: Configs, settings: dict[str, object]) -> None:
    model = DecoderOnlyTransformer(tiny_config(d_model=32, d_ff=64, **settings))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    tokens = torch.randint(0, 17, (4, 13), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = torch.arange(4)  # so that the rows differ from their first token on
    for _ in range(150):
        nats, count = model.loss(tokens[:, :-1], tokens[:, 1:])
        optimizer.zero_grad()
        (nats / count).backward()
        optimizer.step()
    assert (nats / count).item() < 0.05
    assert torch.equal(model(tokens[:, :-1]).argmax(-1), tokens[:, 1:])


@pytest.mark.parametrize("vocab_size", [17, 2_100])  # plain below 2,048 entries, tiled above
@pytest.mark.parametrize("tie", [True, False])
def test_the_loss_is_the_cross_entropy_of_the_logits(tiny_model: Models, vocab_size: int, tie: bool) -> None:
    model = tiny_model(vocab_size=vocab_size, tie_embeddings=tie)
    targets = TOKENS.roll(-1, 1).clone()
    targets[0, 2:5] = IGNORE
    nats, count = model.loss(TOKENS, targets)
    logits = model(TOKENS).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="sum")
    assert int(count) == 13
    torch.testing.assert_close(nats, expected, rtol=1e-9, atol=1e-9)
    parameters = list(model.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(nats, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_the_loss_equals_the_plain_one_from_hidden_vectors(tiny_model: Models) -> None:
    model = tiny_model()
    nats, _ = model.loss(TOKENS, TOKENS)
    expected, _ = next_token_loss(model.hidden(TOKENS).flatten(0, 1), model.head.weight, TOKENS.flatten())
    torch.testing.assert_close(nats, expected, rtol=0, atol=1e-9)


def test_a_config_and_its_settings_build_the_same_model(tiny_config: Configs) -> None:
    config = tiny_config()
    assert DecoderOnlyTransformer(config).config == config
    assert DecoderOnlyTransformer(**config.to_dict()).config == config


def test_a_config_and_settings_together_are_refused(tiny_config: Configs) -> None:
    with pytest.raises(TypeError, match="not both: d_model"):
        DecoderOnlyTransformer(tiny_config(), d_model=3)


def test_an_impossible_shape_is_refused_with_all_its_problems() -> None:
    with pytest.raises(ConfigError, match="did you mean 'd_model'"):
        DecoderOnlyTransformer(d_modl=3)
    with pytest.raises(ConfigError, match=r"d_model=130.*num_kv_heads=3"):
        DecoderOnlyTransformer(ModelConfig(d_model=130, num_kv_heads=3))


@pytest.mark.parametrize("position", POSITIONS)
def test_a_model_on_the_meta_device_has_shapes_and_no_memory(position: str) -> None:
    model = DecoderOnlyTransformer(device="meta", position=position)
    assert {p.device.type for p in model.parameters()} == {b.device.type for b in model.buffers()} | {"meta"}
    logits = model(torch.zeros(2, 5, dtype=torch.int64, device="meta"))
    assert logits.shape == (2, 5, 100_277)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_built(name: str) -> None:
    model = DecoderOnlyTransformer(PRESETS[name].model, device="meta")
    assert sum(model.parameter_counts().values()) == sum(p.numel() for p in model.parameters())


def test_the_gpt2_preset_has_124_million_parameters() -> None:
    counts = DecoderOnlyTransformer(PRESETS["gpt2"].model, device="meta").parameter_counts()
    assert counts["blocks"] + counts["final_norm"] == 85_056_000  # GPT-2's published shape, vocabulary apart
    assert round(sum(counts.values()) / 1e6) == 124


def test_positions_that_follow_from_the_config_are_not_saved(tiny_config: Configs) -> None:
    for position in POSITIONS:
        names = set(DecoderOnlyTransformer(tiny_config(position=position)).state_dict())
        assert ("embeddings.position.weight" in names) == (position == "learned")
        assert not {"rotary", "slopes", "embeddings.sinusoids"} & names


@pytest.mark.parametrize("position", POSITIONS)
def test_attention_weights_are_one_matrix_a_layer_and_head(tiny_model: Models, position: str) -> None:
    model = tiny_model(position=position, num_kv_heads=2)
    before = model(TOKENS)
    weights = model.attention_weights(TOKENS)
    assert [w.shape for w in weights] == [(2, 4, 8, 8)] * 2
    for layer in weights:
        torch.testing.assert_close(layer.sum(-1), torch.ones(2, 4, 8, dtype=torch.float64), rtol=0, atol=1e-12)
        assert (layer.triu(1) == 0).all()
        assert not layer.requires_grad
    torch.testing.assert_close(model(TOKENS), before, rtol=0, atol=0)


def test_attention_weights_beyond_max_seq_len_are_refused(tiny_model: Models) -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match="max_seq_len"):
        model.attention_weights(torch.zeros(1, 13, dtype=torch.int64))


@given(st.integers(1, 3), st.integers(1, 12), st.sampled_from(POSITIONS))
@settings(max_examples=25)
def test_logits_have_a_row_for_every_token(tiny_model: Models, batch: int, length: int, position: str) -> None:
    logits = tiny_model(position=position)(torch.zeros(batch, length, dtype=torch.int64))
    assert logits.shape == (batch, length, 17)
    assert logits.isfinite().all()


def test_every_parameter_gets_a_gradient(tiny_model: Models) -> None:
    for settings_ in ({}, {"activation": "swiglu", "norm": "rmsnorm", "num_kv_heads": 1, "position": "alibi"}):
        model = tiny_model(**settings_)
        model.loss(TOKENS, TOKENS.roll(-1, 1))[0].backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert (parameter.grad != 0).any(), name


@torch.no_grad()
@pytest.mark.parametrize("position", POSITIONS)
def test_bfloat16_weights_stay_close_to_float64(tiny_model: Models, position: str) -> None:
    exact = tiny_model(position=position)
    rough = tiny_model(position=position).to(torch.bfloat16)
    distance = (rough(TOKENS).double() - exact(TOKENS)).abs().max()
    assert float(distance) < 0.05 * float(exact(TOKENS).abs().max())
