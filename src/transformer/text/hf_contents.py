"""Reads a tokenizer.json: what is checked before the `tokenizers` library runs it, and the bytes of its tokens.

The file has a model (here always BPE: a vocabulary and merges), added tokens, and steps around them:

    normalizer        changes the text: Unicode normal form, "▁" for a space
    pre_tokenizer     cuts it into pieces, often by a regular expression
    post_processor    adds special tokens, such as one at the beginning
    decoder           turns tokens back into text

The vocabulary spells bytes in one of two ways. Byte-level (GPT-2, Llama 3, Qwen): one character for each of the 256
bytes (bpe.py, `byte_alphabet`). Byte fallback (Llama 2, Mistral): characters as they are, "▁" for a space, and
"<0x0A>" for a byte whose character has no token.

The file may come from anywhere: everything that this project reads itself is checked here, and the library is run on
what is left. A vocabulary may leave ids unused, as long as all of them are below the model's vocab_size.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .bpe import LARGEST, byte_alphabet
from .hf_steps import check_growth, steps

if TYPE_CHECKING:
    import tokenizers

LARGEST_FILE = 128 * 2**20
"""Characters. The largest file of a known model has 34 million."""
DEEPEST = 50
"""Levels of objects and lists within one another: functions that call themselves for each one are safe."""
SPACE_MARK = "▁"
BYTE_LEVEL = {"ByteLevel", "Fuse"}
BYTE_FALLBACK = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
FALLBACK_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")


def parse(contents: str | bytes, name: str = "tokenizer.json") -> dict[str, Any]:
    """Returns the object in a JSON file. Raises ValueError if it is too large, not JSON, or not an object."""
    if len(contents) > LARGEST_FILE:
        raise ValueError(f"{name} has {len(contents):,} characters; at most {LARGEST_FILE:,} are read")
    try:
        found = json.loads(contents)
    except (ValueError, RecursionError) as error:  # of JSON or of UTF-8
        raise ValueError(f"{name} is not JSON: {brief(error)}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{name} holds a {type(found).__name__}, not an object")
    level: list[Any] = [found]
    for _ in range(DEEPEST):
        inside = (value.values() if isinstance(value, dict) else value for value in level)
        level = [value for values in inside for value in values if isinstance(value, dict | list)]
    if level:
        raise ValueError(f"{name} is nested more than {DEEPEST} levels deep")
    return found


def check(found: Mapping[str, Any]) -> dict[str, int]:
    """Returns the ids of the added tokens. Raises ValueError for a tokenizer.json that is not a sound BPE encoding."""
    model = found.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else None
        raise ValueError(f"tokenizer.json has a model of type {brief(kind)}; only BPE is supported")
    if model.get("dropout"):
        raise ValueError(f"tokenizer.json encodes at random (dropout {brief(model['dropout'])}): set dropout to null")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):  # of WordPiece; the library can abort the whole process on them
            raise ValueError(
                f"tokenizer.json: {name} is {brief(repr(model[name]))}, and only an empty one is supported"
            )
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise ValueError("tokenizer.json has no vocabulary: model.vocab must be an object of ids by token")
    added = found.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise ValueError("tokenizer.json: added_tokens must be a list of objects")
    own = {content_of(token): token.get("id") for token in added}
    for token, number in (*vocabulary.items(), *own.items()):
        if type(number) is not int or not 0 <= number < LARGEST:
            raise ValueError(
                f"tokenizer.json: id {brief(number)} of {brief(repr(token))} is not from 0 to {LARGEST - 1}"
            )
    for ids in (vocabulary, own):
        if len(set(ids.values())) < len(ids):
            raise ValueError("tokenizer.json gives one id to several tokens")
    check_growth(found)
    return own


def content_of(token: object) -> str:
    """Returns the text of an added token. Raises ValueError if it has none."""
    content = token.get("content") if isinstance(token, dict) else None
    if not isinstance(content, str) or not content:
        raise ValueError(f"an added token has the content {brief(repr(content))}, wanted a text")
    return content


def run(contents: str) -> tokenizers.Tokenizer:
    """Returns the library's tokenizer, which encodes special tokens in a text as text. Raises ValueError."""
    from tokenizers import Tokenizer

    with library_errors("cannot run tokenizer.json"):
        made = Tokenizer.from_str(contents)
        made.no_truncation()
        made.no_padding()
        made.encode_special_tokens = True
        made.encode("a b")
    return made


@contextlib.contextmanager
def library_errors(failure: str) -> Iterator[None]:
    """Raises ValueError for an error or a panic of the `tokenizers` library, whose panics are no Exceptions."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"the tokenizers library {failure}: {brief(error)}") from error


def token_bytes(found: Mapping[str, Any]) -> Callable[[str], bytes]:
    """Returns a function from a token of the vocabulary to the bytes that it stands for. Raises ValueError."""
    decoders = list(steps(found.get("decoder"), "decoders"))
    kinds = {str(step.get("type")) for step in decoders}
    if "ByteLevel" in kinds and kinds <= BYTE_LEVEL:
        value = byte_alphabet()

        def of_alphabet(token: str) -> bytes:
            try:
                return bytes(value[character] for character in token)
            except KeyError:  # the library takes such a token as text
                return token.encode()

        return of_alphabet
    for step in decoders:
        if step.get("type") == "Replace" and (step.get("pattern"), step.get("content")) != (
            {"String": SPACE_MARK},
            " ",
        ):
            kinds.add("Replace of something other than the mark of a space")
    if not kinds or not kinds <= BYTE_FALLBACK:
        what = ", ".join(sorted(kinds)) or "missing"
        raise ValueError(f"tokenizer.json: its decoder ({brief(what)}) is neither byte-level nor byte fallback")
    has_bytes = "ByteFallback" in kinds

    def of_characters(token: str) -> bytes:
        if has_bytes and (byte := FALLBACK_TOKEN.fullmatch(token)):
            return bytes.fromhex(byte[1])
        return token.replace(SPACE_MARK, " ").encode()

    return of_characters


def strips_first_space(found: Mapping[str, Any]) -> bool:
    """Whether decoding removes the space that encoding puts before a text."""
    for step in steps(found.get("decoder"), "decoders"):
        if step.get("type") == "Strip" and step.get("content") == " " and step.get("start") == 1:
            return True
        if step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never":
            return bool(step.get("add_prefix_space", True))
    return False


def brief(value: object) -> str:
    """Returns what somebody else wrote on one line, 120 characters at most."""
    line = " ".join(str(value).split())
    return line if len(line) <= 120 else f"{line[:120]}..."
