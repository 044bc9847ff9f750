"""Documents scored in windows: every token once, with context, the same number however they are batched."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel

from parity.test_gpt2 import ours, theirs
from transformer import DecoderOnlyTransformer
from transformer.evaluation.document_perplexity import score_documents, window_sizes, windows
from transformer.evaluation.statistics import DocumentScores
from transformer.kernels import accelerate
from transformer.kernels.tiled_loss import TILED_FROM_VOCAB
from transformer.text import Tokens

Models = Callable[..., DecoderOnlyTransformer]
CONTEXT, EOT = 12, 16  # the tiny model's


def texts(*lengths: int, vocab: int = 16, seed: int = 0) -> list[Tokens]:
    """Documents with these numbers of targets; the last target of each is an end-of-text."""
    random = np.random.default_rng(seed)
    return [np.append(random.integers(0, vocab, max(0, n - 1)), EOT).astype(np.uint32)[:n] for n in lengths]


def score(model: DecoderOnlyTransformer, documents: list[Tokens], **how: int | None) -> DocumentScores:
    return score_documents(model, documents, [len(tokens) for tokens in documents], EOT, **how)  # type: ignore[arg-type]


def token_by_token(model: DecoderOnlyTransformer, document: Tokens, context: int = CONTEXT) -> list[float]:
    """The definition: the surprisal of each token, given up to `context` tokens before it."""
    stream = [EOT, *document.tolist()]
    nats = []
    for index in range(1, len(stream)):
        before = torch.tensor([stream[max(0, index - context) : index]])
        with torch.no_grad():
            nats.append(-model(before)[0, -1].log_softmax(0)[stream[index]].item())
    return nats


@given(length=st.integers(0, 60), context=st.integers(1, 14), data=st.data())
def test_any_stride_counts_every_target_exactly_once(length: int, context: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, context))
    found = list(windows(length, context, stride))
    assert [target for window in found for target in range(window.first, window.end)] == list(range(length))
    assert all(0 <= window.start <= window.first < window.end <= window.start + context for window in found)
    assert [window.start for window in found] == list(range(0, len(found) * stride, stride))


@given(length=st.integers(1, 60), context=st.integers(1, 14), data=st.data())
def test_each_token_has_at_least_context_minus_stride_plus_1_inputs(
    length: int, context: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, context))
    seen = {target: target - w.start + 1 for w in windows(length, context, stride) for target in range(w.first, w.end)}
    for target, inputs in seen.items():
        assert inputs >= min(target + 1, context - stride + 1)


@given(length=st.integers(1, 60), context=st.integers(1, 14), data=st.data())
def test_half_the_stride_never_shortens_the_context_of_a_token(length: int, context: int, data: st.DataObject) -> None:
    """This does not hold for any two strides, since their windows begin at other tokens."""
    stride = 2 * data.draw(st.integers(1, max(1, context // 2)))
    if stride > context:
        return
    long, short = (
        [target - w.start for w in windows(length, context, s) for target in range(w.first, w.end)]
        for s in (stride, stride // 2)
    )
    assert all(a <= b for a, b in zip(long, short, strict=True))


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary", "alibi"])
def test_a_stride_of_1_is_the_token_by_token_definition(tiny_model: Models, position: str) -> None:
    model = tiny_model(position=position)
    documents = texts(1, 5, 12, 13, 40)
    scores = score(model, documents, stride=1, batch_size=7)
    expected = [sum(token_by_token(model, document)) for document in documents]
    assert scores.nats.tolist() == pytest.approx(expected, rel=1e-12)
    assert scores.tokens.tolist() == [1, 5, 12, 13, 40]


def test_a_shorter_context_is_used_if_it_is_given(tiny_model: Models) -> None:
    model = tiny_model()
    (document,) = texts(30)
    expected = sum(token_by_token(model, document, context=5))
    assert score(model, [document], stride=1, context=5).nats.item() == pytest.approx(expected, rel=1e-12)


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6), stride=st.integers(1, 12), size=st.integers(1, 20))
@settings(max_examples=30)
def test_batches_and_other_documents_change_nothing(
    tiny_model: Models, lengths: list[int], stride: int, size: int
) -> None:
    model, documents = tiny_model(), texts(*lengths)
    together = score(model, documents, stride=stride, batch_size=size)
    alone = [score(model, [document], stride=stride).nats.item() for document in documents]
    assert together.nats.tolist() == pytest.approx(alone, rel=1e-12)
    assert together.tokens.tolist() == together.text_bytes.tolist() == lengths


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(tiny_model: Models) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.head.weight.zero_()
    for stride in (1, 5, 12):
        scores = score(model, texts(7, 30), stride=stride)
        assert scores.evaluation.perplexity == pytest.approx(17)
        assert scores.nats.tolist() == pytest.approx([7 * math.log(17), 30 * math.log(17)])


def nats_in_windows(model: GPT2LMHeadModel, tokens: list[int], context: int, stride: int) -> float:
    """The loop of the perplexity guide in transformers' documentation, with sums instead of means."""
    nats, counted_to = 0.0, 1
    for start in range(0, len(tokens) - 1, stride):
        end = min(start + context, len(tokens) - 1)
        piece = torch.tensor([tokens[start : end + 1]])
        with torch.no_grad():
            predicted = model(piece[:, :-1]).logits[0].log_softmax(-1)
        came = predicted.gather(1, piece[0, 1:, None])[:, 0]  # of the targets start + 1 to end
        nats -= came[counted_to - start - 1 :].sum().item()
        counted_to = end + 1
        if counted_to == len(tokens):
            break
    return nats


@pytest.mark.parametrize("stride", [1, 6, 16])
def test_windows_agree_with_transformers(stride: int) -> None:
    documents = texts(9, 16, 17, 50, vocab=61)
    found = score_documents(ours(), documents, [1] * 4, 0, stride=stride, batch_size=3).nats.tolist()
    expected = [nats_in_windows(theirs(), [0, *document.tolist()], 16, stride) for document in documents]
    assert found == pytest.approx(expected, rel=1e-5)


def test_one_window_has_the_loss_that_transformers_computes() -> None:
    (document,) = texts(15, vocab=61)
    ids = torch.tensor([[0, *document.tolist()]])
    with torch.no_grad():
        loss = theirs()(ids, labels=ids).loss.item()
    assert score_documents(ours(), [document], [1], 0).evaluation.loss == pytest.approx(loss, rel=1e-5)


def test_a_large_vocabulary_is_scored_in_tiles_to_the_same_sums() -> None:
    torch.manual_seed(0)
    model = DecoderOnlyTransformer(
        vocab_size=TILED_FROM_VOCAB + 100, d_model=16, num_heads=2, num_layers=1, d_ff=32, max_seq_len=CONTEXT
    ).double().eval()  # fmt: skip
    accelerate(model)
    documents = texts(30, 9, vocab=2_000)
    expected = [sum(token_by_token(model, document)) for document in documents]
    assert score(model, documents, stride=1).nats.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_and_gradients_are_off_and_the_models_mode_comes_back(tiny_model: Models, training: bool) -> None:
    model = tiny_model(dropout=0.5).train(training)
    documents = texts(20, 30)
    assert torch.equal(score(model, documents).nats, score(tiny_model(), documents).nats)
    assert {module.training for module in model.modules()} == {training}
    assert not score(model, documents).nats.requires_grad
    assert torch.is_grad_enabled()


def test_progress_ends_at_all_tokens(tiny_model: Models) -> None:
    done: list[int] = []
    score_documents(tiny_model(), texts(5, 30, 2), [1, 1, 1], EOT, batch_size=2, progress=done.append)
    assert done == sorted(done)
    assert done[-1] == 37


def test_no_documents_and_empty_documents_have_no_tokens(tiny_model: Models) -> None:
    assert len(score(tiny_model(), [])) == 0
    assert score(tiny_model(), texts(0, 3, 0)).tokens.tolist() == [0, 3, 0]


def test_the_default_stride_is_half_the_context() -> None:
    assert window_sizes(128) == (128, 64)
    assert window_sizes(128, context=40) == (40, 20)
    assert window_sizes(1) == (1, 1)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"stride": 0}, "stride=0 must be from 1 to the context of 12"),
        ({"stride": 13}, "stride=13 must be from 1 to the context of 12"),
        ({"context": 13}, "context=13 must be from 1 to 12"),
        ({"context": 0}, "context=0 must be from 1 to 12"),
        ({"context": 4, "stride": 5}, "stride=5 must be from 1 to the context of 4"),
        ({"batch_size": -1}, "batch_size=-1 must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused(tiny_model: Models, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(tiny_model(), texts(5), **sizes)


def test_the_plain_kernels_evaluate_with_the_plain_loss(tiny_model: Models) -> None:
    """`evaluate --kernels plain` used the tiles."""
    documents = texts(30, 7, vocab=TILED_FROM_VOCAB)
    model = tiny_model(vocab_size=TILED_FROM_VOCAB + 17, dtype=torch.float32)
    files: dict[str, set[str]] = {}
    scores = {}
    for kernels in ("plain", "auto"):
        called = files.setdefault(kernels, set())
        accelerate(model, kernels)
        sys.setprofile(lambda frame, event, argument, called=called: called.add(frame.f_code.co_filename))
        try:
            scores[kernels] = score(model, documents).nats
        finally:
            sys.setprofile(None)
    assert [any(name.endswith("tiled_loss.py") for name in files[kernels]) for kernels in files] == [False, True]
    torch.testing.assert_close(scores["plain"], scores["auto"], rtol=1e-5, atol=1e-5)
