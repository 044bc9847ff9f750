"""From the vocabulary in a GGUF file to a tokenizer.json, and back.

Two kinds of vocabulary are read. `gpt2`: byte-level BPE with a list of merges. The rule by which a text is cut into
pieces before merging is not in the file; it has a name (`pre`), and llama.cpp contains the rules. `llama`: the
sentencepiece kind, with a score for each token instead of merges; two neighbours are joined if the result is a token,
the highest score first, so a merge's rank follows from the score of its result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NoReturn

from transformer.interop.errors import SourceError
from transformer.interop.gguf_header import GgufHeader, GgufList
from transformer.interop.tokenizer_json import GPT2
from transformer.text.hf_contents import SPACE_MARK
from transformer.text.hf_tokenizer import HuggingFaceTokenizer

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
DIGITS = r"\p{N}"
PIECES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "exaone4"), (GPT2,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), (DIGITS, GPT2)),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "dbrx", "smaug-bpe"), (LLAMA3,)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez", "stablelm2"), (QWEN2,)),
}
"""llama.cpp's names of rules, and the regular expressions that cut a text, one after the other."""
WHOLE_PIECES = {"llama-bpe", "llama3", "llama-v3", "falcon3"}
"""Rules with which a piece that is a token needs no merges, and a text starts with a token of its own."""
COMPOSED = {"qwen2"}
"""Rules of models whose text is in Unicode's composed form (NFC)."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of tokens."""
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
LONGEST_TOKEN = 512
"""Characters of a token with a score: each way to cut it in two is tried."""
MOST_CUTS = 16
"""Ways to cut a token into two others, on average; known vocabularies have 2."""


def read_tokenizer(header: GgufHeader, vocab_size: int) -> HuggingFaceTokenizer:
    """Returns the encoding in a GGUF file. Raises SourceError if it is damaged, or of a kind that is not supported."""
    vocabulary = _Vocabulary(header)
    contents = json.dumps(vocabulary.tokenizer_json(), ensure_ascii=False)
    try:
        return HuggingFaceTokenizer(
            contents, vocabulary.tokenizer_config(), vocab_size=vocab_size, stop_ids=vocabulary.stop_ids()
        )
    except ValueError as error:
        raise SourceError(f"{header.path}: its vocabulary cannot be used: {error}") from error


class _Vocabulary:
    """The settings `tokenizer.ggml.*` of a file."""

    def __init__(self, header: GgufHeader) -> None:
        self.header = header
        self.model = self.get("model", str, "")
        self.pre = self.get("pre", str, "")
        if self.model not in ("gpt2", "llama"):
            self.refuse(f"a vocabulary of the kind {self.model!r}; supported: gpt2 and llama")
        if self.model == "gpt2" and self.pre not in PIECES:
            self.refuse(f"a vocabulary with the rule {self.pre!r} for pieces; supported: {', '.join(PIECES)}")
        self.tokens: list[str] = self.entries("tokens", str)
        self.types: list[int] = self.entries("token_type", int) or [NORMAL] * len(self.tokens)
        if len(set(self.tokens)) < len(self.tokens) or len(self.types) != len(self.tokens) or not self.tokens:
            self.refuse("a vocabulary without tokens, with one twice, or without a type for each")

    def refuse(self, reason: str) -> NoReturn:
        raise SourceError(f"{self.header.path}: {reason}")

    def get(self, key: str, wanted: type | tuple[type, ...], default: Any = None) -> Any:
        return self.header.get(f"tokenizer.ggml.{key}", wanted, default)

    def entries(self, key: str, wanted: type) -> list[Any]:
        found = self.get(key, GgufList)
        values = [] if found is None else found.values()
        if not all(type(value) is wanted for value in values):
            self.refuse(f"tokenizer.ggml.{key} is not a list of {wanted.__name__}")
        return values

    def name_of(self, key: str) -> str | None:
        """Returns the token whose id a setting holds."""
        number = self.get(f"{key}_token_id", int)
        if number is not None and not 0 <= number < len(self.tokens):
            self.refuse(f"tokenizer.ggml.{key}_token_id is {number}, and there are {len(self.tokens)} tokens")
        return None if number is None else self.tokens[number]

    def adds_bos(self) -> bool:
        return bool(self.get("add_bos_token", bool, self.model == "llama" or self.pre in WHOLE_PIECES))

    def tokenizer_config(self) -> dict[str, Any]:
        names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
        found: dict[str, Any] = {name: self.name_of(key) for name, key in names.items()}
        template = self.header.get("tokenizer.chat_template", str)
        found |= {"add_bos_token": self.adds_bos() and found["bos_token"] is not None, "chat_template": template}
        return {name: value for name, value in found.items() if value is not None}

    def stop_ids(self) -> list[int]:
        found = [self.get(f"{key}_token_id", int) for key in ("eos", "eot")]
        return [number for number in found if number is not None and 0 <= number < len(self.tokens)]

    def tokenizer_json(self) -> dict[str, Any]:
        kinds = zip(self.tokens, self.types, strict=True)
        added = [
            {
                "id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": kind != USER_DEFINED,
            }
            for number, (token, kind) in enumerate(kinds)
            if kind in (CONTROL, USER_DEFINED) or (kind == UNKNOWN and self.model == "llama")
        ]  # fmt: skip
        steps = self._byte_level() if self.model == "gpt2" else self._byte_fallback()
        return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **steps}

    def _byte_level(self) -> dict[str, Any]:
        merges = self.entries("merges", str)
        pairs = [merge.split(" ") for merge in merges]
        if not all(len(pair) == 2 for pair in pairs):
            self.refuse("tokenizer.ggml.merges has an entry that is not two tokens with a space between them")
        return {
            "normalizer": {"type": "NFC"} if self.pre in COMPOSED else None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*map(_split, PIECES[self.pre]), BYTE_LEVEL]},
            "post_processor": None,
            "decoder": BYTE_LEVEL,
            "model": self._bpe(pairs, ignore_merges=self.pre in WHOLE_PIECES),
        }

    def _byte_fallback(self) -> dict[str, Any]:
        scores = self.entries("scores", float)
        if len(scores) != len(self.tokens):
            self.refuse("tokenizer.ggml.scores has no number for each token")
        if max(map(len, self.tokens)) > LONGEST_TOKEN:
            self.refuse(f"a token has more than {LONGEST_TOKEN} characters")
        most = MOST_CUTS * (len(self.tokens) + LONGEST_TOKEN)
        if len(merges := list(islice(self._merges_by_score(scores), most + 1))) > most:
            self.refuse(f"its tokens can be cut into two others in more than {most:,} ways")
        prefix = self.get("add_space_prefix", bool, True)
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK}
        first = [{"type": "Prepend", "prepend": SPACE_MARK}] if prefix else []
        last = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
        back = {"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "}
        return {
            "normalizer": {"type": "Sequence", "normalizers": [*first, replace]},
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *last]},
            "model": self._bpe(merges, byte_fallback=True, fuse_unk=True),
        }

    def _bpe(self, merges: Sequence[Sequence[str]], **settings: bool) -> dict[str, Any]:
        vocabulary = {token: number for number, token in enumerate(self.tokens)}
        unknown = self.name_of("unknown") if self.model == "llama" else None
        flags = {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False, **settings}
        return {"type": "BPE", "dropout": None, "unk_token": unknown, **flags, "vocab": vocabulary, "merges": merges}

    def _merges_by_score(self, scores: list[float]) -> Iterator[tuple[str, str]]:
        """Yields every way to cut a token into two, those of the highest score first."""
        normal = {token for token, kind in zip(self.tokens, self.types, strict=True) if kind in (NORMAL, USER_DEFINED)}
        for number in sorted(range(len(scores)), key=lambda number: -scores[number]):
            token = self.tokens[number]
            if token in normal:
                cuts = ((token[:at], token[at:]) for at in range(1, len(token)))
                yield from (cut for cut in cuts if normal.issuperset(cut))


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
