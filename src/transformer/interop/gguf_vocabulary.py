"""From an encoding to the vocabulary of a GGUF file: the reverse of gguf_tokenizer.py.

llama.cpp knows the rules for cutting a text into pieces only by name, so an encoding with another rule has no equal
there. For bpeN, whose rule keeps "o'er" whole, the nearest one is taken, and `note` says so; others are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from transformer.interop.gguf_tokenizer import (
    BYTE,
    CONTROL,
    DIGITS,
    LLAMA3,
    NORMAL,
    PIECES,
    QWEN2,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)
from transformer.interop.tokenizer_json import GPT2, PATTERNS, tokenizer_files
from transformer.text import HuggingFaceTokenizer, Tokenizer
from transformer.text.bpe import SPLIT_PATTERN
from transformer.text.encodings import PATTERNS as RUST_PATTERNS
from transformer.text.hf_contents import FALLBACK_TOKEN

if TYPE_CHECKING:
    import gguf

NEAREST = (
    "llama.cpp has no rule equal to this encoding's; it cuts numbers and some words with apostrophes into other tokens"
)
LIKE_LLAMA3 = ((LLAMA3,), (PATTERNS[RUST_PATTERNS["cl100k_base"]],), (SPLIT_PATTERN,))
RULES: dict[tuple[str, ...], str] = {
    (): "gpt-2",  # single bytes, so that no rule matters
    (GPT2,): "gpt-2",
    (PATTERNS[RUST_PATTERNS["p50k_base"]],): "gpt-2",
    (DIGITS, GPT2): "smollm",
    (QWEN2,): "qwen2",
}
"""The regular expressions of an encoding -> llama.cpp's name of the rule. Llama 3's has two names: `rule`."""


@dataclass(frozen=True)
class Vocabulary:
    """What `tokenizer.ggml.*` says about an encoding."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    """Ids of bos, eos, eot, unknown."""
    adds_bos: bool = False
    adds_space: bool = False
    template: str | None = None
    note: str | None = None

    def write(self, writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        writer.add_token_scores(self.scores)
        for name, number in self.ids.items():
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", number)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_space_prefix(self.adds_space)
        if self.template:
            writer.add_chat_template(self.template)


def vocabulary(tokenizer: Tokenizer, vocab_size: int) -> Vocabulary:
    """Returns the vocabulary of a model with `vocab_size` ids. Raises ValueError for an encoding without an equal."""
    found = tokenizer_files(tokenizer, context=0)["tokenizer.json"]
    kinds = {step.get("type") for step in _steps(found.get("decoder"), "decoders")}
    adds_bos, template = False, None
    ids = {"bos": tokenizer.eot_id, "eos": tokenizer.eot_id}
    if isinstance(tokenizer, HuggingFaceTokenizer):
        adds_bos, template = tokenizer.bos_id is not None, tokenizer.chat_template
        ids |= {"bos": tokenizer.bos_id} if tokenizer.bos_id is not None else {}
        ids |= {"eot": tokenizer.stop_ids[1]} if len(tokenizer.stop_ids) > 1 else {}
    tokens, types = _tokens(found, vocab_size)
    given: dict[str, Any] = {"tokens": tokens, "types": types, "adds_bos": adds_bos, "template": template}
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in found["model"]["merges"]]
    if "ByteFallback" in kinds:
        unknown = found["model"].get("unk_token")
        ids |= {"unknown": tokens.index(unknown)} if unknown else {}
        scores = _scores(tokens, pairs)
        return Vocabulary("llama", "default", scores=scores, ids=ids, adds_space=_adds_space(found), **given)
    pre = rule(found)
    note = NEAREST if _patterns(found) == (SPLIT_PATTERN,) else None
    # llama.cpp wants at least one merge; a pair of whole special tokens never occurs within a text.
    merges = [" ".join(pair) for pair in pairs] or [f"{tokens[tokenizer.eot_id]} {tokens[tokenizer.eot_id]}"]
    return Vocabulary("gpt2", pre, merges=merges, ids=ids, note=note, **given)


def rule(found: Mapping[str, Any]) -> str:
    """Returns llama.cpp's name of the rule by which a tokenizer.json cuts a text into pieces. Raises ValueError."""
    patterns = _patterns(found)
    if patterns in LIKE_LLAMA3:
        return "llama-bpe" if found["model"].get("ignore_merges") else "dbrx"
    if patterns not in RULES:
        known = ", ".join(sorted(PIECES))
        raise ValueError(f"llama.cpp has no rule for this encoding's pieces (pre_tokenizer); it has {known} and others")
    return RULES[patterns]


def _patterns(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the regular expressions that cut a text, one after the other; those of unknown steps are "?"."""
    patterns = []
    for step in _steps(found.get("pre_tokenizer"), "pretokenizers"):
        if step.get("type") == "ByteLevel":
            patterns += ["?"] * bool(step.get("add_prefix_space")) + [GPT2] * bool(step.get("use_regex", True))
        elif step.get("type") == "Digits" and step.get("individual_digits"):
            patterns.append(DIGITS)
        elif step.get("type") == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
            patterns.append(str(step["pattern"].get("Regex", "?")))
        else:
            patterns.append("?")
    return tuple(patterns)


def _steps(part: Mapping[str, Any] | None, inner: str) -> Iterator[Mapping[str, Any]]:
    if part and part.get("type") == "Sequence":
        for step in part[inner]:
            yield from _steps(step, inner)
    elif part:
        yield part


def _tokens(found: Mapping[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    """Returns every token by id, and its type; ids without one get a name of their own."""
    tokens = [f"[UNUSED{number}]" for number in range(vocab_size)]
    types = [UNUSED] * vocab_size
    for token, number in found["model"]["vocab"].items():
        is_byte = found["model"].get("byte_fallback") and FALLBACK_TOKEN.fullmatch(token)
        tokens[number], types[number] = token, BYTE if is_byte else NORMAL
    for token in found.get("added_tokens") or []:
        kind = CONTROL if token.get("special") else USER_DEFINED
        tokens[token["id"]] = token["content"]
        types[token["id"]] = UNKNOWN if token["content"] == found["model"].get("unk_token") else kind
    return tokens, types


def _scores(tokens: list[str], pairs: list[list[str]]) -> list[float]:
    """Returns a score for each token: the earlier the merge that makes it, the higher."""
    ranks: dict[str, int] = {}
    for left, right in pairs:
        ranks.setdefault(left + right, len(ranks))
    return [-float(ranks.get(token, len(ranks))) for token in tokens]


def _adds_space(found: Mapping[str, Any]) -> bool:
    steps = [
        *_steps(found.get("normalizer"), "normalizers"),
        *_steps(found.get("pre_tokenizer"), "pretokenizers"),
    ]
    spaces = [step for step in steps if step.get("type") in ("Prepend", "Metaspace")]
    return any(step.get("prepend_scheme") != "never" for step in spaces)
