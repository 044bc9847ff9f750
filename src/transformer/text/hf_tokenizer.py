"""Encodings of other models: a tokenizer.json, run by the `tokenizers` library.

A model understands only the ids that it was trained with. So an imported model brings its tokenizer.json, and its
checkpoint carries that file whole. Ids equal those of `transformers`; three rules decide the cases in which
`transformers` has a choice:

Special tokens in a text. Ids such as `<|im_start|>` steer a model: they separate documents, or say who speaks in a
chat. A page about them, or a message of a user, must not write them by accident or on purpose. So `encode` reads
the characters `<|im_start|>` as text (`split_special_tokens=True` in `transformers`), and `encode_special` reads them
as the special token, for text that the caller wrote; chat_template.py separates the two in a chat. Added tokens that
are not special, such as runs of spaces, are part of the vocabulary and always match.

The beginning of a text. Llama expects a token before each text (BOS): `bos_id`, or None for a model that
expects none. It is not part of the text: `encode` leaves it out, as training text and evaluation need it; `prompt_ids`
(tokenizer.py) puts it before a prompt, and evaluation reads it before a document, without scoring it.

The end. `eot_id` is the tokenizer's `eos_token`. It separates documents in training and ends generation, as do the
other `stop_ids`, which the model's own settings name.

Two kinds change the text itself, and so what comes back: NFC (Qwen) composes accents, and byte fallback (Llama 2) puts
a space before a text, which `decode` removes again; `decode_bytes` keeps it, because a token in the middle of a text
may begin with a space of the text itself.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from .hf_contents import brief, check, content_of, library_errors, parse, run, strips_first_space, token_bytes
from .tokenizer import END_OF_TEXT, REPLACEMENT, Tokens, checked_ids, encode_in_slices, replace_lone_surrogates

if TYPE_CHECKING:
    import tokenizers

KNOWN_ENDS = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>")
"""The end-of-text tokens of known models, for a tokenizer without settings."""

SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class HuggingFaceTokenizer:
    """An encoding by its tokenizer.json (`contents`) and its tokenizer_config.json (`settings`).

    `vocab_size` is the model's, which may be larger than the encoding's; `stop_ids` end generation besides `eot_id`.
    Raises ValueError, on one line, for contents that are unsound or do not fit.
    """

    def __init__(
        self,
        contents: str | bytes,
        settings: Mapping[str, Any] | None = None,
        *,
        vocab_size: int | None = None,
        stop_ids: Sequence[int] = (),
    ) -> None:
        found = parse(contents)
        added = check(found)
        self.contents = contents if isinstance(contents, str) else contents.decode()
        self.settings = dict(settings or {})
        self._spelling, self._strips = token_bytes(found), strips_first_space(found)
        self._run = run(self.contents)
        self._add_tokens(added)
        largest = max(self._run.get_vocab().values())
        self.vocab_size = largest + 1 if vocab_size is None else vocab_size
        if largest >= self.vocab_size:
            raise ValueError(f"tokenizer.json has ids up to {largest}, and the model a vocab_size of {self.vocab_size}")
        self.stop_ids = self._ends(stop_ids)
        self.eot_id = self.stop_ids[0]
        self.bos_id = self._expected_first()
        self._make_special()

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> HuggingFaceTokenizer:
        """Returns the encoding whose `state()` this is. Raises ValueError for anything else."""
        match state:
            case {"contents": str(contents), "settings": str(settings), "vocab_size": int(size), "stop_ids": list(ids)}:
                return cls(contents, parse(settings, "tokenizer_config.json"), vocab_size=size, stop_ids=ids)
        raise ValueError("the saved tokenizer.json is damaged: wanted contents, settings, vocab_size and stop_ids")

    def state(self) -> dict[str, object]:
        settings = json.dumps(self.settings, ensure_ascii=False)
        return {
            "kind": "tokenizer.json", "contents": self.contents, "settings": settings,
            "vocab_size": self.vocab_size, "stop_ids": list(self.stop_ids),
        }  # fmt: skip

    def __reduce__(self) -> tuple[Any, ...]:
        return HuggingFaceTokenizer.from_state, (self.state(),)

    @property
    def name(self) -> str:
        return f"hf{self.vocab_size}"

    @property
    def short_name(self) -> str:
        return self.name

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that turns a chat into a prompt, as the model's authors wrote it: chat_template.py."""
        found = self.settings.get("chat_template")
        if isinstance(found, list):  # several, by name
            named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
            found = named.get("default")
        return found if isinstance(found, str) else None

    @property
    def special_tokens(self) -> dict[str, str]:
        """The special tokens that the settings name, such as eos_token: chat templates read them under these names."""
        given = {name: self.settings.get(name) for name in SPECIAL_NAMES}
        named = {name: token.get("content") if isinstance(token, dict) else token for name, token in given.items()}
        found = {name: token for name, token in named.items() if isinstance(token, str)}
        return {"eos_token": self.decode([self.eot_id]), **found}

    def encode(self, text: str) -> list[int]:
        return _ids(self._run, text)

    def encode_special(self, text: str) -> list[int]:
        """Returns the ids of a text in which special tokens, written out, are meant. Never for text of others."""
        return _ids(self._run_special, text)

    def special_starts(self, text: str) -> list[int]:
        """Returns where `encode_special` finds special tokens in a text, in characters."""
        with library_errors(f"cannot encode a text of {len(text):,} characters"):
            found = self._run_special.encode(text, add_special_tokens=False)
        return [start for number, (start, _) in zip(found.ids, found.offsets, strict=True) if number in self._special]

    def encode_array(self, text: str) -> Tokens:
        return np.array(self.encode(text), dtype=np.uint32)

    def encode_batch(self, texts: Sequence[str], pool: ThreadPoolExecutor | None = None) -> list[Tokens]:
        return encode_in_slices(self._encode_all, texts, pool)

    def _encode_all(self, texts: Sequence[str]) -> list[Tokens]:
        whole = [replace_lone_surrogates(text) for text in texts]
        with library_errors("cannot encode these texts"):
            found = self._run.encode_batch_fast(whole, add_special_tokens=False)
        return [np.array(each.ids, dtype=np.uint32) for each in found]

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        known = self._token_bytes
        return b"".join(known.get(i, REPLACEMENT) for i in checked_ids(tokens, self.vocab_size))

    def decode(self, tokens: Iterable[int]) -> str:
        text = self.decode_bytes(tokens).decode(errors="replace")
        return text.removeprefix(" ") if self._strips else text

    def added_tokens(self) -> dict[int, tokenizers.AddedToken]:
        """Returns the added tokens by id, special and not."""
        return self._run.get_added_tokens_decoder()

    @functools.cached_property
    def _token_bytes(self) -> dict[int, bytes]:
        found = {number: self._spelling(token) for token, number in self._run.get_vocab(False).items()}
        added = self._run.get_added_tokens_decoder()
        return found | {number: token.content.encode() for number, token in added.items()}

    @functools.cached_property
    def _special(self) -> set[int]:
        return {number for number, token in self._run.get_added_tokens_decoder().items() if token.special}

    @functools.cached_property
    def _run_special(self) -> tokenizers.Tokenizer:
        run_special = type(self._run).from_str(self._run.to_str())
        run_special.encode_special_tokens = False
        return run_special

    def _add_tokens(self, promised: dict[str, int]) -> None:
        """Adds the tokens that only the settings name. Raises ValueError for an id that is not so."""
        from tokenizers import AddedToken

        more = self.settings.get("added_tokens_decoder") or {}
        if not isinstance(more, dict) or not all(str(number).isdecimal() for number in more):
            raise ValueError("tokenizer_config.json: added_tokens_decoder must be an object of tokens by id")
        for number, token in sorted((int(number), token) for number, token in more.items()):
            content = content_of(token)
            promised.setdefault(content, number)
            if self._run.token_to_id(content) is None:
                flags = {flag: bool(token.get(flag)) for flag in ("single_word", "lstrip", "rstrip", "special")}
                self._run.add_tokens([AddedToken(content, normalized=bool(token.get("normalized")), **flags)])
        for content, number in promised.items():
            if (own := self._run.token_to_id(content)) != number:
                raise ValueError(
                    f"the added token {brief(repr(content))} has id {number}, but would be encoded as {own}"
                )

    def _make_special(self) -> None:
        """Marks the tokens that begin and end a text as special, whatever their file says: no text may contain them."""
        from tokenizers import AddedToken

        known = self._run.get_added_tokens_decoder()
        for number in self.stop_ids if self.bos_id is None else (*self.stop_ids, self.bos_id):
            token = known.get(number)
            if token is None and number in (self.eot_id, self.bos_id):
                token = AddedToken(self._run.id_to_token(number) or "", normalized=False)
            if token is not None:
                token.special = True
                self._run.add_special_tokens([token])

    def _ends(self, stop_ids: Sequence[int]) -> tuple[int, ...]:
        """Returns the ids that end a text, the tokenizer's own first. Raises ValueError if there is none."""
        own = self._named("eos_token")
        ends = [*([] if own is None else [own]), *stop_ids]
        if not all(type(end) is int and 0 <= end < self.vocab_size for end in ends):
            raise ValueError(f"the stop ids {brief(ends)} are not from 0 to {self.vocab_size - 1}")
        known = (self._run.token_to_id(token) for token in KNOWN_ENDS)
        ends = ends or [end for end in known if end is not None][:1]
        if not ends:
            raise ValueError("the tokenizer has no end of text: name its eos_token in tokenizer_config.json")
        return tuple(dict.fromkeys(ends))

    def _expected_first(self) -> int | None:
        """Returns the id that the model expects before a text, from the settings or else from the post-processor."""
        if "add_bos_token" in self.settings:
            return self._named("bos_token") if self.settings["add_bos_token"] else None
        encoded = self._run.encode("a")
        first = encoded.ids[: sum(takewhile(bool, encoded.special_tokens_mask))]
        if len(first) > 1:
            raise ValueError(f"tokenizer.json puts {len(first)} tokens before a text; at most one is supported")
        return first[0] if first else None

    def _named(self, name: str) -> int | None:
        """Returns the id of a special token that the settings name. Raises ValueError if the vocabulary lacks it."""
        token = self.settings.get(name)
        if token is None:
            return None
        content = content_of(token if isinstance(token, dict) else {"content": token})
        found = self._run.token_to_id(content)
        if found is None:
            raise ValueError(f"tokenizer_config.json: the {name} {brief(repr(content))} is not in the vocabulary")
        return found


def _ids(runs: tokenizers.Tokenizer, text: str) -> list[int]:
    with library_errors(f"cannot encode a text of {len(text):,} characters"):
        ids: list[int] = runs.encode(replace_lone_surrogates(text), add_special_tokens=False).ids
        return ids
