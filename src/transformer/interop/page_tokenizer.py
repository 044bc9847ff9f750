"""The byte-level tokenizer.json of another model, in the format of page/tokenizer.js.

The page merges as tiktoken does: of two neighbours that together are a token, those of the lowest id first. Merges in
order give the same ids if the ids rise in that order too, and if each token's own merge is among them
(tokenizer_json.py); known models are of this kind. What the page cannot do exactly as the library is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from transformer.interop.tokenizer_json import GPT2, PATTERNS, merges
from transformer.text import HuggingFaceTokenizer
from transformer.text.bpe import byte_alphabet

_ESCAPE = r"\\[pP]\{[A-Z][a-z]?\}|\\[sSrnt/]"
SAME_IN_JAVASCRIPT = re.compile(
    rf"(?:{_ESCAPE}|\[\^?(?:{_ESCAPE}|[^\\\[\]&])*\]|\(\?(?:i:|:|!)|\{{\d(?:,\d)?\}}(?!\+)|[A-Za-z0-9 '|()?*+/_-])*"
)
"""The regular expressions that page/tokenizer.js translates to JavaScript exactly."""
RUST = {here: rust for rust, here in PATTERNS.items()}


def byte_level_parts(tokenizer: HuggingFaceTokenizer) -> dict[str, Any]:
    """Returns what page/tokenizer.js needs besides names: the ids of byte strings and of added tokens, and the cuts.

    {"ranks": id by bytes, "special": id by name, "added": id by text, "patterns": in order, "composed": bool}. Raises
    ValueError for a tokenizer that the page cannot run.
    """
    found = json.loads(tokenizer.contents)
    if tokenizer.bos_id is not None:
        _refuse("the model expects a token before each text")
    if (found.get("decoder") or {}).get("type") != "ByteLevel":
        _refuse("it is not byte-level")
    if found.get("normalizer") not in (None, {"type": "NFC"}):
        _refuse("it changes the text by other rules than NFC")
    run = tokenizer.added_tokens()
    added = {token.content: number for number, token in run.items() if not token.special}
    if any(token.lstrip or token.rstrip or token.single_word for token in run.values() if not token.special):
        _refuse("an added token depends on the characters around it")
    ranks = _ranks(found["model"], {token.content for token in run.values()})
    special = {token.content: number for number, token in run.items() if token.special}
    patterns = [RUST.get(pattern, pattern) for pattern in _patterns(found.get("pre_tokenizer"))]
    for pattern in patterns:
        if pattern not in PATTERNS and not SAME_IN_JAVASCRIPT.fullmatch(pattern):
            _refuse("JavaScript has no equal of its regular expression")
    composed = found.get("normalizer") is not None
    return {"ranks": ranks, "special": special, "added": added, "patterns": patterns, "composed": composed}


def _ranks(model: Mapping[str, Any], others: set[str]) -> dict[bytes, int]:
    """Returns the id of each byte string. Raises ValueError unless merging by ids gives what merging in order gives."""
    value = byte_alphabet()
    try:
        ranks = {bytes(value[c] for c in token): i for token, i in model["vocab"].items() if token not in others}
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        made = [(bytes(value[c] for c in left), bytes(value[c] for c in right)) for left, right in pairs]
        order = [ranks[left + right] for left, right in made]
    except KeyError:
        _refuse("it has tokens that are not written in bytes")
    own = merges(ranks)
    single = sum(len(token) == 1 for token in ranks)  # SmolLM2 lacks some bytes: they vanish from a text
    is_equal = single == 256 if model.get("ignore_merges") else single + len(own) == len(ranks)
    if not is_equal or order != sorted(order) or not set(own) <= set(made):
        _refuse("its ids are not in the order of its merges")
    return ranks


def _patterns(step: Mapping[str, Any] | None) -> Iterator[str]:
    """Yields the regular expressions that cut a text, in order; what they do not match is a piece too."""
    match step:
        case None:
            return
        case {"type": "Sequence", "pretokenizers": list(steps)}:
            for each in steps:
                yield from _patterns(each)
        case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False}:
            yield pattern
        case {"type": "Digits", "individual_digits": bool(single)}:
            yield r"\p{N}" if single else r"\p{N}+"
        case {"type": "ByteLevel", "add_prefix_space": False}:
            if step.get("use_regex", True):
                yield GPT2
        case _:
            _refuse("it cuts a text in another way than by regular expressions")


def _refuse(reason: str) -> NoReturn:
    raise ValueError(f"the lesson page cannot run this model's tokenizer: {reason}")
