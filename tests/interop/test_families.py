"""Models of every family compute what transformers computes, and leave as they came."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tiny_families import CASES, save, theirs
from transformer import DecoderOnlyTransformer
from transformer.inference.padding import pad, padded_context
from transformer.interop.families import hf_settings, hf_weights, read_model
from transformer.interop.tensor_files import TensorFolder

TOKENS = torch.randint(0, 61, (2, 48), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def ours(case: str, tmp_path_factory: pytest.TempPathFactory) -> DecoderOnlyTransformer:
    folder = tmp_path_factory.mktemp(case)
    settings = save(case, folder)
    source = TensorFolder(folder)
    return read_model(settings, source.tensor, source.names, torch.float32)


def write(folder: Path, model: DecoderOnlyTransformer) -> dict[str, Tensor]:
    """Writes a folder that transformers can load; returns its tensors."""
    weights = dict(hf_weights(model))
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(hf_settings(model.config, "float32")), encoding="utf-8")
    return weights


@torch.no_grad()
def test_logits_agree(case: str, ours: DecoderOnlyTransformer) -> None:
    torch.testing.assert_close(ours(TOKENS), theirs(case)(TOKENS).logits, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_decoding_with_the_cache_agrees(case: str, ours: DecoderOnlyTransformer) -> None:
    cache = ours.allocate_cache(2)
    reference = theirs(case)(TOKENS).logits
    parts = [ours(TOKENS[:, :7], cache), *(ours(TOKENS[:, at : at + 1], cache) for at in range(7, 20))]
    torch.testing.assert_close(torch.cat(parts, dim=1), reference[:, :20], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_prompts_of_unequal_length_agree(case: str, ours: DecoderOnlyTransformer) -> None:
    tokens, padding = pad([TOKENS[0, :5].tolist(), TOKENS[1, :11].tolist()])
    mask = (torch.arange(11) >= padding[:, None]).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    reference = theirs(case)(tokens, attention_mask=mask, position_ids=positions).logits
    found = ours.head(ours.hidden(tokens, context=padded_context(ours, tokens, None, padding)))
    torch.testing.assert_close(found[:, -5:], reference[:, -5:], rtol=1e-5, atol=1e-5)


def test_greedy_text_agrees(case: str, ours: DecoderOnlyTransformer) -> None:
    prompt = TOKENS[:, :4]
    reference = theirs(case).generate(
        prompt, max_new_tokens=30, do_sample=False, eos_token_id=None, pad_token_id=0,
        attention_mask=torch.ones_like(prompt),
    )  # fmt: skip
    assert torch.equal(ours.generate(prompt, max_new_tokens=30), reference)


@torch.no_grad()
def test_an_export_is_the_same_model_for_transformers_and_for_us(
    case: str, ours: DecoderOnlyTransformer, tmp_path: Path
) -> None:
    written = write(tmp_path, ours)
    model, found = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert [kind for kind, names in found.items() if names] == []  # no weight is missing, unexpected, or mismatched
    torch.testing.assert_close(model.eval()(TOKENS).logits, theirs(case)(TOKENS).logits, rtol=1e-5, atol=1e-5)
    source = TensorFolder(tmp_path)
    again = read_model(hf_settings(ours.config, "float32"), source.tensor, source.names, torch.float32)
    assert again.config == ours.config
    for name, weight in ours.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    for name, weight in hf_weights(again):
        assert torch.equal(weight, written[name]), name


def test_a_file_of_transformers_and_our_export_hold_the_same_bytes(
    case: str, ours: DecoderOnlyTransformer, tmp_path: Path
) -> None:
    save(case, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    written = dict(hf_weights(ours))
    stored = {name.replace("lm_head", "embed_out") if "neox" in case else name: stored[name] for name in stored}
    assert written.keys() == stored.keys()
    assert all(torch.equal(written[name], stored[name]) for name in written)


def test_sharded_weights_are_the_same_model(ours: DecoderOnlyTransformer, case: str, tmp_path: Path) -> None:
    settings = save(case, tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    source = TensorFolder(tmp_path)
    model = read_model(settings, source.tensor, source.names, torch.float32)
    assert all(torch.equal(weight, ours.state_dict()[name]) for name, weight in model.state_dict().items())
