"""What is seen inside a model equals what TransformerLens sees in the same weights, for GPT-2's shape and for Llama's.

`make test-lens` installs transformer-lens, which has thirty dependencies, and runs this file.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import transformer
from model_folders import save_model
from transformer import DecoderOnlyTransformer
from transformer.activations import activation_names
from transformer.interop.importing import import_checkpoint
from transformer.interop.sources import open_source
from transformer.interpret.attribution import attribute
from transformer.interpret.lens import lens_logits
from transformer.interpret.patching import logit_difference, patch_heads, patch_positions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("transformer_lens") is None, reason="make test-lens installs transformer-lens"),
    pytest.mark.filterwarnings("ignore"),  # theirs
]
TOKENS = torch.randint(300, (2, 9), generator=torch.Generator().manual_seed(0))
CLEAN, CORRUPT = TOKENS[:1], torch.cat([TOKENS[:1, :3], TOKENS[1:, 3:4], TOKENS[:1, 4:]], dim=1)
TARGET, VERSUS = 7, 123
EXACT = {"rtol": 1e-5, "atol": 1e-5}

THEIR_NAMES = {
    "residual_before": "hook_resid_pre", "attention_norm": "ln1.hook_out", "attention.values": "attn.hook_v",
    "attention.scores": "attn.hook_attn_scores", "attention.weights": "attn.hook_pattern",
    "attention.heads": "attn.hook_z", "attention.output": "hook_attn_out", "residual_mid": "hook_resid_mid",
    "feedforward_norm": "ln2.hook_out", "feedforward.hidden": "mlp.hook_post", "feedforward.output": "hook_mlp_out",
    "residual_after": "hook_resid_post",
}  # fmt: skip


class Pair(NamedTuple):
    """The same weights in our model and behind their bridge, in float64."""

    kind: str
    ours: DecoderOnlyTransformer
    theirs: Any
    folded: Any
    """Theirs with the weights of the norms folded into the matrices, as their attribution expects."""


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer

    kind = request.param
    folder = save_model(tmp_path_factory.mktemp(kind), kind, num_key_value_heads=4 if kind == "gpt2" else 2)

    def bridge() -> Any:
        loaded = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").double().eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return TransformerBridge.boot_transformers(
            str(folder), hf_model=loaded, tokenizer=tokenizer, dtype=torch.float64
        )

    folded = bridge()
    folded.enable_compatibility_mode(center_writing_weights=False, center_unembed=False, fold_value_biases=False)
    checkpoint = import_checkpoint(open_source(str(folder)), tmp_path_factory.mktemp("ours"))
    return Pair(kind, transformer.load(checkpoint).model.double(), bridge(), folded)


def their_name(kind: str, name: str) -> str:
    if name in ("final_norm", "logits"):
        return {"final_norm": "ln_final.hook_out", "logits": "hook_unembed"}[name]
    _, layer, part = name.split(".", 2)
    rotated = {"attention.queries": "attn.hook_rot_q", "attention.keys": "attn.hook_rot_k"}
    plain = {"attention.queries": "attn.hook_q", "attention.keys": "attn.hook_k"}
    return f"blocks.{layer}.{(THEIR_NAMES | (rotated if kind == 'llama' else plain))[part]}"


@torch.no_grad()
def test_every_activation_is_theirs(pair: Pair) -> None:
    logits, found = pair.ours.run_with_cache(TOKENS)
    their_logits, theirs = pair.theirs.run_with_cache(TOKENS)
    torch.testing.assert_close(logits, their_logits, **EXACT)
    positions = theirs["hook_pos_embed"] if pair.kind == "gpt2" else 0
    torch.testing.assert_close(found.pop("embeddings"), theirs["hook_embed"] + positions, **EXACT)
    assert len(found) == len(activation_names(pair.ours)) - 1 == 2 * 14 + 2
    for name, ours in found.items():
        expected = theirs[their_name(pair.kind, name)]
        if name.endswith(("queries", "keys", "values", "heads")):
            expected = expected.transpose(1, 2)  # theirs are (B, T, H, D)
        if name.endswith("scores"):  # they mask with another number
            seen = torch.ones(9, 9, dtype=torch.bool).tril()
            ours, expected = ours[..., seen], expected[..., seen]
        torch.testing.assert_close(ours, expected, **EXACT, msg=lambda message, name=name: f"{name}: {message}")


@torch.no_grad()
def test_the_logit_lens_is_theirs(pair: Pair) -> None:
    _, cache = pair.theirs.run_with_cache(TOKENS)
    streams = cache.accumulated_resid(incl_mid=True)
    ours = list(lens_logits(pair.ours, TOKENS, middle=True))[::-1]
    assert len(ours) == len(streams) == 5
    for (name, logits), stream in zip(ours, streams, strict=True):
        expected = pair.theirs.unembed(pair.theirs.ln_final(stream))
        torch.testing.assert_close(logits, expected, **EXACT, msg=lambda message, name=name: f"{name}: {message}")


@torch.no_grad()
def test_attribution_is_theirs(pair: Pair) -> None:
    _, cache = pair.folded.run_with_cache(TOKENS)
    stack, labels = cache.get_full_resid_decomposition(expand_neurons=False, return_labels=True, pos_slice=-1)
    theirs = dict(zip(labels, cache.logit_attrs(stack, TARGET, VERSUS, pos_slice=-1, has_batch_dim=True), strict=True))
    shares = attribute(pair.ours, TOKENS, TARGET, VERSUS)
    for layer in range(2):
        torch.testing.assert_close(shares.feedforwards[:, layer], theirs[f"{layer}_mlp_out"], **EXACT)
        for head in range(4):
            torch.testing.assert_close(shares.heads[:, layer, head], theirs[f"L{layer}H{head}"], **EXACT)
    embeddings = theirs["embed"] + (theirs["pos_embed"] if pair.kind == "gpt2" else 0)
    torch.testing.assert_close(shares.embeddings, embeddings, **EXACT)


@torch.no_grad()
def test_patching_grids_are_theirs(pair: Pair) -> None:
    from transformer_lens import patching

    answer = logit_difference(TARGET, VERSUS)

    def metric(logits: Tensor) -> Tensor:
        return answer(logits[:, -1])[0]

    for direction, source, prompt in (("denoising", CLEAN, CORRUPT), ("noising", CORRUPT, CLEAN)):
        logits, cache = pair.theirs.run_with_cache(source)
        base, other = metric(pair.theirs(prompt)), metric(logits)
        arguments = (pair.ours, CLEAN, CORRUPT, answer)

        streams = patch_positions(*arguments, direction=direction)
        middle = patch_positions(*arguments, "residual_mid", direction=direction)
        networks = patch_positions(*arguments, "feedforward.output", direction=direction)
        outputs = patch_positions(*arguments, "attention.output", direction=direction)
        heads = patch_heads(*arguments, direction=direction)
        places = patch_heads(*arguments, by_position=True, direction=direction)
        for ours, patch in (
            (streams[:2], patching.get_act_patch_resid_pre),
            (middle, patching.get_act_patch_resid_mid),
            (networks, patching.get_act_patch_mlp_out),
            (outputs, patching.get_act_patch_attn_out),
            (heads, patching.get_act_patch_attn_head_out_all_pos),
            (places.transpose(1, 2), patching.get_act_patch_attn_head_out_by_pos),
        ):
            theirs = patch(pair.theirs, prompt, cache, metric)  # the answers, float32; ours are effects
            torch.testing.assert_close((base + ours * (other - base)).float(), theirs, **EXACT)
