"""The browser encodes any Unicode text into the same tokens as Python."""

from __future__ import annotations

import json
import random

import pytest
from playwright.sync_api import Page

from page.browsing import compute
from tiny_tokenizers import TEXT as TRAINED_ON
from tiny_tokenizers import tokenizer_files
from transformer.interop.lesson_page import export_tokenizer
from transformer.text import HuggingFaceTokenizer, Tokenizer, load_shakespeare, load_tokenizer, train_bpe
from transformer.text.bpe import build_bpe, byte_alphabet

# Ranges that patterns, UTF-8 or JavaScript treat specially.
RANGES = [
    (0x20, 0x7F), (0x09, 0x0E), (0x20, 0x21), (0x85, 0x86), (0xA0, 0x180), (0x17F, 0x180), (0x212A, 0x212C),  # ſ, K
    (0x300, 0x370), (0x400, 0x500), (0x600, 0x6FF), (0xB2, 0xBF), (0x2000, 0x2070), (0x4E00, 0x4F00), (0xAC00, 0xAD00),
    (0x1100, 0x1200), (0xFE00, 0xFE10), (0xFEFF, 0xFF00), (0x1F600, 0x1F650), (0x1F1E6, 0x1F200), (0xE000, 0xE010),
]  # fmt: skip
HARD = [
    "", " ", "\0", "low low lower", "It's I'LL we'Ve 'ſ x'ſ 'S K'K they'RE o'er d'étoile's", "\ufeffmark \ufeff",
    "a\u0085b \u0085\u0085 c\u00a0d\u2028e\u3000\u3000f", "  \n\n  x  \r\n\r\n y \t z   ", "1234567 ١٢٣٤ ²³¼ x1y22z",
    "👩\u200d👩\u200d👧\u200d👦🇩🇪 é e\u0301 \u0301", "한국어 日本語 العربية हिन्दी ไทย", "<|endoftext|><|fim_prefix|>",
    "x" * 3000 + " " * 500 + "\n" * 100, "ab" * 5000, "end  ",
]  # fmt: skip


def random_text(generator: random.Random) -> str:
    length = generator.randrange(1, 60)
    return "".join(chr(generator.randrange(*generator.choice(RANGES))) for _ in range(length))


TEXTS = [*HARD, *(random_text(random.Random(seed)) for seed in range(300))]


# The pattern of o200k_base, which is not bundled: it distinguishes upper and lower case.
O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ]
)


def encoding(name: str) -> Tokenizer:
    if "600" not in name:
        return load_tokenizer(name)
    trained = train_bpe(load_shakespeare()[:20], 600)
    ranks = trained.state()["ranks"]
    assert isinstance(ranks, list)
    return build_bpe(ranks, O200K) if name.startswith("o200k") else trained


@pytest.fixture(params=["byte", "bpe600", "o200k's pattern, 600", "cl100k_base", "p50k_base"], scope="module")
def tokenizer(request: pytest.FixtureRequest, engine: Page) -> Tokenizer:
    """An encoding; in the browser it is the global `tokenizer`."""
    found = encoding(request.param)
    compute(engine, "exported => { globalThis.tokenizer = GPT.tokenizer(exported) }", export_tokenizer(found))
    return found


def test_text_is_encoded_as_in_python_and_decoded_back(tokenizer: Tokenizer, engine: Page) -> None:
    encoded = compute(engine, "texts => texts.map((text) => tokenizer.encode(text))", TEXTS)
    wrong = [text for text, tokens in zip(TEXTS, encoded, strict=True) if tokens != tokenizer.encode(text)]
    assert wrong == []
    assert compute(engine, "texts => texts.map((tokens) => tokenizer.decode(tokens))", encoded) == TEXTS


def test_half_a_surrogate_pair_becomes_the_replacement_character(tokenizer: Tokenizer, engine: Page) -> None:
    for units in [[0x61, 0xD83D, 0x62], [0xDE00], [0xD83D, 0xD83D, 0xDE00], [0xDE00, 0xD83D]]:
        found = compute(engine, "units => tokenizer.encode(String.fromCharCode(...units))", units)
        assert found == tokenizer.encode("".join(map(chr, units)))


def test_any_tokens_decode_as_in_python(tokenizer: Tokenizer, engine: Page) -> None:
    generator = random.Random(1)
    ids = [[generator.randrange(tokenizer.vocab_size) for _ in range(12)] for _ in range(200)]
    ids += [[tokenizer.eot_id, tokenizer.vocab_size - 1], [0xF0, 0x9F, 0x98], [0xE2, 0x82, 0x41, 0xFF]]
    found = compute(engine, "texts => texts.map((tokens) => tokenizer.decode(tokens))", ids)
    assert found == [tokenizer.decode(tokens) for tokens in ids]


def test_an_id_outside_the_vocabulary_is_an_error(tokenizer: Tokenizer, engine: Page) -> None:
    for wrong in [-1, tokenizer.vocab_size]:
        assert f"token {wrong} is outside 0 to" in compute(engine, "id => tokenizer.decode([id])", wrong)


def test_pieces_have_text_and_bytes_and_a_stream_returns_whole_characters(tokenizer: Tokenizer, engine: Page) -> None:
    text = "né 👩"
    pieces = compute(engine, "text => tokenizer.pieces(text)", text)
    assert [piece["id"] for piece in pieces] == tokenizer.encode(text)
    assert bytes(value for piece in pieces for value in piece["bytes"]) == text.encode()
    assert pieces[0]["text"] == tokenizer.decode([pieces[0]["id"]])
    streamed = compute(
        engine,
        "ids => { const stream = tokenizer.stream(); return [...ids.map(stream.push), stream.flush()] }",
        tokenizer.encode(text),
    )
    assert "".join(streamed) == text
    assert "\ufffd" not in "".join(streamed)


def without_bytes(contents: str, *values: int) -> str:
    """A byte-level tokenizer.json in which these bytes have no token."""
    found = json.loads(contents)
    for character, value in byte_alphabet().items():
        if value in values:
            del found["model"]["vocab"][character]
    return json.dumps(found)


@pytest.mark.parametrize("kind", ["gpt2", "qwen", "smollm", "neox"])
def test_the_tokenizer_of_another_model_gives_the_ids_of_python(kind: str, engine: Page) -> None:
    """qwen composes accents and has tokens such as <tool_call>, smollm cuts digits apart, neox has tokens of spaces."""
    contents, settings = tokenizer_files(kind)
    if kind == "smollm":  # SmolLM2 drops characters with such bytes, in transformers too
        contents = without_bytes(contents, 0x04, 0x7F, 0xEF, 0xF1)
    tokenizer = HuggingFaceTokenizer(contents, settings, vocab_size=600)
    texts = [
        *TEXTS,
        *TRAINED_ON,
        "<tool_call> a</tool_call><tool_call",
        "x" + " " * 30 + "y\x04\x7f th\x04e\uff01",
        "e\u0301 \u1112\u1161\u11ab",
    ]
    compute(engine, "exported => { globalThis.tokenizer = GPT.tokenizer(exported) }", export_tokenizer(tokenizer))
    encoded = compute(engine, "texts => texts.map((text) => tokenizer.encode(text))", texts)
    assert [text for text, tokens in zip(texts, encoded, strict=True) if tokens != tokenizer.encode(text)] == []
    generator = random.Random(2)
    ids = [*encoded, *([generator.randrange(600) for _ in range(12)] for _ in range(200))]
    found = compute(engine, "texts => texts.map((tokens) => tokenizer.decode(tokens))", ids)
    assert found == [tokenizer.decode(tokens) for tokens in ids]


def test_a_token_can_be_long(engine: Page) -> None:
    tokenizer = train_bpe(["=" * 4096] * 3, 256 + 11 + 1)
    exported = export_tokenizer(tokenizer)
    found = compute(engine, "([exported, text]) => GPT.tokenizer(exported).encode(text)", [exported, "=" * 5000])
    assert found == tokenizer.encode("=" * 5000)
    assert len(found) < 20
