"""A patched run equals one that is patched by hand, one place at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transformer import DecoderOnlyTransformer
from transformer.interpret import patching
from transformer.interpret.patching import logit_difference, patch_heads, patch_positions
from transformer.kernels import accelerate
from variants import variants

Models = Callable[..., DecoderOnlyTransformer]
CLEAN, CORRUPT = torch.tensor([[3, 1, 4, 1, 5]]), torch.tensor([[3, 9, 4, 1, 5]])
ANSWER = logit_difference(2, 6)


def by_hand(model: DecoderOnlyTransformer, name: str, place: tuple[Any, ...], source: Tensor, prompt: Tensor) -> float:
    """The effect of one activation at one place, by a run of its own."""
    _, found = model.run_with_cache(source, [name])

    def patch(activation: Tensor) -> Tensor:
        new = activation.clone()
        new[place] = found[name][place]
        return new

    patched, base, other = (
        float(ANSWER(logits[:, -1]))
        for logits in (model.run_with_hooks(prompt, {name: patch}), model(prompt), model(source))
    )
    return (patched - base) / (other - base)


@given(settings_=variants(), direction=st.sampled_from(["denoising", "noising"]))
@settings(max_examples=3)
@torch.no_grad()
def test_every_effect_is_that_of_a_run_patched_by_hand(
    tiny_model: Models, settings_: dict[str, Any], direction: Any
) -> None:
    model = tiny_model(**settings_)
    source, prompt = (CLEAN, CORRUPT) if direction == "denoising" else (CORRUPT, CLEAN)
    arguments = (model, CLEAN, CORRUPT, ANSWER)
    streams = patch_positions(*arguments, direction=direction)
    outputs = patch_positions(*arguments, "feedforward.output", direction=direction)
    heads = patch_heads(*arguments, direction=direction)
    places = patch_heads(*arguments, by_position=True, direction=direction)
    assert (streams.shape, outputs.shape, heads.shape, places.shape) == ((3, 5), (2, 5), (2, 4), (2, 4, 5))
    pairs = []
    for t in range(5):
        for row, name in enumerate(("blocks.0.residual_before", "blocks.1.residual_before", "blocks.1.residual_after")):
            pairs.append((streams[row, t], by_hand(model, name, (0, t), source, prompt)))
        pairs.append((outputs[1, t], by_hand(model, "blocks.1.feedforward.output", (0, t), source, prompt)))
        pairs.append((places[1, 2, t], by_hand(model, "blocks.1.attention.heads", (0, 2, t), source, prompt)))
    for head in range(4):
        pairs.append((heads[0, head], by_hand(model, "blocks.0.attention.heads", (0, head), source, prompt)))
    found, expected = zip(*pairs, strict=True)
    torch.testing.assert_close(torch.stack(found), torch.tensor(expected).double(), rtol=1e-6, atol=1e-8)
    # Tokens before the change are the same in both prompts; at the last stream only the last position counts.
    torch.testing.assert_close(streams[:, 0], torch.zeros(3).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(streams[-1], torch.tensor([0.0, 0, 0, 0, 1]).double(), rtol=0, atol=1e-9)


@torch.no_grad()
def test_batches_accelerated_models_and_training_mode_make_no_difference(
    tiny_model: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = patch_heads(tiny_model(), CLEAN, CORRUPT, ANSWER, by_position=True)
    monkeypatch.setattr(patching, "ROWS_AT_ONCE", 3)
    model, told = accelerate(tiny_model(dropout=0.5)).train(), []
    found = patch_heads(
        model, CLEAN, CORRUPT, ANSWER, by_position=True, on_layer=lambda done, total: told.append((done, total))
    )
    assert told == [(1, 2), (2, 2)]
    assert model.training
    torch.testing.assert_close(found, plain, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("clean", "corrupt", "message"),
    [
        (
            CLEAN,
            CORRUPT[:, :4],
            r"shapes \(1, 5\) and \(1, 4\): patching needs one text each, with equally many tokens",
        ),
        (CLEAN.expand(2, -1), CORRUPT.expand(2, -1), "patching needs one text each"),
        (CLEAN, CLEAN, "both prompts have the same answer"),
    ],
)
def test_prompts_that_cannot_be_compared_are_refused(
    tiny_model: Models, clean: Tensor, corrupt: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        patch_positions(tiny_model(), clean, corrupt, ANSWER)


def test_parallel_blocks_have_no_middle_to_patch(tiny_model: Models) -> None:
    with pytest.raises(ValueError, match=r"no activation is named 'blocks\.0\.residual_mid'"):
        patch_positions(tiny_model(parallel_blocks=True), CLEAN, CORRUPT, ANSWER, "residual_mid")
