"""The document mask keeps attention within a document, and the model reads each document as if it were alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from transformer import DecoderOnlyTransformer, KVCache
from transformer.attention import causal_mask, explicit_attention, fused_attention
from transformer.config import IGNORE
from transformer.data.document_mask import document_mask

Models = Callable[..., DecoderOnlyTransformer]

POSITIONS = ["learned", "sinusoidal", "rotary", "alibi"]
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])
END = 16
DOCUMENTS = [[3, 1, 4], [END], [END, 1, 5], [END, 9, 2, 6, 5]]
"""The first and the last are cut by the ends of their row, as documents are; the second is empty."""
PACKED = torch.tensor([[token for document in DOCUMENTS for token in document]])
ROWS = st.lists(st.integers(0, 3), min_size=1, max_size=12)
"""Rows of documents, 0 being end-of-text: empty documents, lone ones and cut ones among them."""


def random_qkv(queries: int, keys: int, heads: int, kv_heads: int, batch: int = 2, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, heads, queries, 6), (batch, kv_heads, keys, 6), (batch, kv_heads, keys, 6)]
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]


def test_the_document_mask_by_hand() -> None:
    rows = torch.tensor([[7, 0, 5, 6, 0], [0, 0, 4, 4, 4]])  # documents 7, 0 5 6 and 0; an empty one and 0 4 4 4
    first, second = document_mask(rows, end_of_text=0)[:, 0].int().tolist()
    assert first == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 1]]
    assert second == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 1]]


@given(ROWS)
@settings(max_examples=50)
def test_a_query_attends_to_a_key_unless_an_end_of_text_follows_it_up_to_the_query(row: list[int]) -> None:
    mask = document_mask(torch.tensor([row]), end_of_text=0)
    assert mask.shape == (1, 1, len(row), len(row))
    for query, seen in enumerate(mask[0, 0].tolist()):
        # An end-of-text is seen from the document that it begins, and itself sees nothing before it.
        assert seen == [key <= query and 0 not in row[key + 1 : query + 1] for key in range(len(row))]


@given(length=st.integers(1, 12), begins=st.booleans())
def test_the_document_mask_of_one_document_is_the_causal_mask(length: int, begins: bool) -> None:
    row = torch.ones(1, length, dtype=torch.int64)
    row[0, 0] = 0 if begins else 1
    assert torch.equal(document_mask(row, end_of_text=0)[0, 0], causal_mask(length, length))


@given(
    rows=st.lists(st.integers(0, 2**12 - 1), min_size=1, max_size=3), length=st.integers(1, 12), seed=st.integers(0, 99)
)
@settings(max_examples=50)
def test_explicit_and_fused_agree_for_any_documents(rows: list[int], length: int, seed: int) -> None:
    ends = torch.tensor([[row >> position & 1 for position in range(length)] for row in rows])  # 1: an end-of-text
    qkv = random_qkv(length, length, 4, 2, batch=len(rows), seed=seed)
    mask = document_mask(ends, end_of_text=1)
    explicit, fused = explicit_attention(*qkv, mask)[0], fused_attention(*qkv, mask)
    torch.testing.assert_close(fused, explicit, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        torch.autograd.grad(fused.sum(), qkv), torch.autograd.grad(explicit.sum(), qkv), rtol=1e-9, atol=1e-9
    )


def test_an_end_of_text_attends_to_itself_alone() -> None:
    row = torch.tensor([[5, 6, 0, 7, 8]])
    q, k, v = random_qkv(5, 5, 4, 2, batch=1)
    out, weights = explicit_attention(q, k, v, document_mask(row, end_of_text=0))
    assert weights[0, :, 2].tolist() == [[0, 0, 1, 0, 0]] * 4
    torch.testing.assert_close(out[:, :, 2], v.repeat_interleave(2, dim=1)[:, :, 2], rtol=0, atol=1e-12)
    assert (weights[0, :, 4, 2:] > 0).all()  # the document that it begins sees it


def test_no_gradient_flows_from_a_document_into_the_one_before() -> None:
    row = torch.tensor([[5, 6, 0, 7, 8]])
    qkv = random_qkv(5, 5, 4, 2, batch=1)
    out = fused_attention(*qkv, document_mask(row, end_of_text=0))
    for gradient in torch.autograd.grad(out[:, :, 2:].sum(), qkv):
        assert gradient.isfinite().all()
        assert (gradient[:, :, :2] == 0).all()
    (values,) = torch.autograd.grad(fused_attention(*qkv, document_mask(row, end_of_text=0)).sum(), qkv[2])
    assert (values != 0).any(-1).all()  # every value is seen by somebody


# Within the model


def masked_hidden(model: DecoderOnlyTransformer, tokens: torch.Tensor) -> torch.Tensor:
    return model.hidden(tokens, context=model.context(tokens, mask=document_mask(tokens, END)))


def loss(
    model: DecoderOnlyTransformer, tokens: torch.Tensor, targets: torch.Tensor, end_of_text: int | None
) -> torch.Tensor:
    return model.loss(tokens, targets, None if end_of_text is None else document_mask(tokens, end_of_text))[0]


def nats_of(
    model: DecoderOnlyTransformer, tokens: torch.Tensor, position: int, end_of_text: int | None
) -> torch.Tensor:
    """Returns the loss of the token at `position` alone, in every row."""
    targets = torch.full_like(tokens, IGNORE)
    targets[:, position - 1] = tokens[:, position]
    return loss(model, tokens, targets, end_of_text)


@given(
    documents=st.lists(st.lists(st.integers(0, END - 1), max_size=3), min_size=2, max_size=3), data=st.data(),
    position=st.sampled_from(POSITIONS),
)  # fmt: skip
@settings(max_examples=40)
def test_tokens_of_an_earlier_document_change_nothing_in_a_later_one(
    tiny_model: Models, documents: list[list[int]], data: st.DataObject, position: str
) -> None:
    model = tiny_model(position=position, num_kv_heads=2)
    tokens = torch.tensor([[token for document in documents for token in [*document, END]]])
    changed, start = tokens.clone(), len(documents[0])  # at its end-of-text the second document begins
    for position in range(start):
        changed[0, position] = data.draw(st.integers(0, END))
    torch.testing.assert_close(
        masked_hidden(model, changed)[:, start:], masked_hidden(model, tokens)[:, start:], rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("position", POSITIONS)
def test_any_token_of_an_earlier_document_changes_no_loss_of_a_later_one_nor_of_its_first_token(
    tiny_model: Models, position: str
) -> None:
    model = tiny_model(position=position)
    for start in (position for position, token in enumerate(PACKED[0].tolist()) if token == END):
        losses = [nats_of(model, PACKED, position, END) for position in range(start + 1, PACKED.shape[1])]
        for position in range(start):
            changed = PACKED.clone()
            changed[0, position] = 8  # replaces an end-of-text too: two earlier documents become one
            found = [nats_of(model, changed, later, END) for later in range(start + 1, PACKED.shape[1])]
            torch.testing.assert_close(found, losses, rtol=0, atol=1e-10)


@pytest.mark.parametrize("position", POSITIONS)
def test_an_earlier_document_shows_without_the_mask_and_in_the_loss_of_the_end_of_text_after_it(
    tiny_model: Models, position: str
) -> None:
    model, changed = tiny_model(position=position), PACKED.clone()
    changed[0, 0] = 8
    for position in (5, PACKED.shape[1] - 1):  # the first token of a document, and its last
        assert not torch.allclose(
            nats_of(model, changed, position, None), nats_of(model, PACKED, position, None), atol=1e-4
        )
    assert not torch.allclose(nats_of(model, changed, 3, END), nats_of(model, PACKED, 3, END), atol=1e-4)


@pytest.mark.parametrize("position", ["rotary", "alibi"])
def test_a_document_and_the_end_of_text_before_it_are_read_as_if_they_stood_alone(
    tiny_model: Models, position: str
) -> None:
    model = tiny_model(position=position, num_kv_heads=2)
    alone = torch.cat([model.hidden(torch.tensor([document])) for document in DOCUMENTS], dim=1)
    # The table of rotations is rounded to float32, so that distances are equal to seven digits only.
    exact = 1e-5 if position == "rotary" else 1e-10
    torch.testing.assert_close(masked_hidden(model, PACKED), alone, rtol=0, atol=exact)
    assert not torch.allclose(model.hidden(PACKED), alone, atol=1e-3)


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_absolute_positions_count_on_through_the_row(tiny_model: Models, position: str) -> None:
    model = tiny_model(position=position)
    alone = torch.cat([model.hidden(torch.tensor([document])) for document in DOCUMENTS], dim=1)
    found, first = masked_hidden(model, PACKED), len(DOCUMENTS[0])
    torch.testing.assert_close(found[:, :first], alone[:, :first], rtol=0, atol=1e-10)
    assert not torch.allclose(found[:, first:], alone[:, first:], atol=1e-3)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("first", [5, END])
def test_one_document_in_the_row_is_no_mask_exactly(tiny_model: Models, position: str, first: int) -> None:
    model = tiny_model(position=position, num_kv_heads=2)
    tokens, targets = TOKENS.clone(), TOKENS.roll(-1, 1)
    tokens[:, 0] = first
    torch.testing.assert_close(masked_hidden(model, tokens), model.hidden(tokens), rtol=0, atol=1e-12)
    parameters = list(model.parameters())
    masked, plain = (loss(model, tokens, targets, end_of_text) for end_of_text in (END, None))
    torch.testing.assert_close(
        [masked, *torch.autograd.grad(masked, parameters)], [plain, *torch.autograd.grad(plain, parameters)],
        rtol=0, atol=1e-11,
    )  # fmt: skip


@pytest.mark.parametrize("position", POSITIONS)
def test_explicit_and_fused_agree_on_the_loss_of_documents(tiny_model: Models, position: str) -> None:
    model = tiny_model(position=position, num_kv_heads=2)
    parameters, found = list(model.parameters()), []
    for attend in (fused_attention, lambda *arguments: explicit_attention(*arguments)[0]):
        for block in model.layers:
            block.attention.attend = attend
        nats = loss(model, PACKED, PACKED.roll(-1, 1), END)
        found.append([nats, *torch.autograd.grad(nats, parameters)])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("position", POSITIONS)
def test_every_parameter_gets_a_gradient_from_documents(tiny_model: Models, position: str) -> None:
    model = tiny_model(position=position)
    loss(model, PACKED, PACKED.roll(-1, 1), END).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("position", POSITIONS)
def test_a_mask_goes_with_a_cache(tiny_model: Models, position: str) -> None:
    model, mask = tiny_model(position=position), document_mask(PACKED, END)  # (1, 1, 12, 12)
    cache = KVCache.allocate(model.config, 1, dtype=torch.float64)
    parts = []
    for a, b in [(0, 3), (3, 4), (4, 9), (9, 12)]:
        tokens = PACKED[:, a:b]
        parts.append(model.hidden(tokens, cache, model.context(tokens, cache, mask[:, :, a:b, :b])))
    torch.testing.assert_close(torch.cat(parts, 1), masked_hidden(model, PACKED), rtol=0, atol=1e-10)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("end_of_text", [END, None])
def test_attention_always_takes_the_fused_kernel(tiny_model: Models, position: str, end_of_text: int | None) -> None:
    """ALiBi's bias once had three dimensions, for which PyTorch's attention takes its slow way on a CPU."""
    model = tiny_model(position=position, num_kv_heads=2)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        loss(model, PACKED, PACKED, end_of_text)
        cache = KVCache.allocate(model.config, 1, dtype=torch.float64)
        for start, end in [(0, 4), (4, 5), (5, 9)]:
            model.hidden(PACKED[:, start:end], cache)


def test_rows_are_masked_each_by_its_own_documents(tiny_model: Models) -> None:
    model = tiny_model(position="alibi")
    rows = torch.cat([PACKED, PACKED.flip(1), torch.full_like(PACKED, 3)])
    alone = torch.cat([masked_hidden(model, row[None]) for row in rows])
    torch.testing.assert_close(masked_hidden(model, rows), alone, rtol=1e-10, atol=1e-10)
