r"""Chats as a model was trained on them: from messages to token ids, by the model's own template.

A model that answers was trained on texts in which special tokens say who speaks. Each family has a form of its own:

    <|im_start|>user          the special tokens <|im_start|> and <|im_end|>: SmolLM2, Qwen
    Is it far?<|im_end|>
    <|im_start|>assistant
                              here the model continues, and ends its answer with <|im_end|>

A chat template (tokenizer_config.json, GGUF) writes this form: a small program in the language Jinja that reads
`messages`, each with a role (system, user, assistant) and a content. Three rules:

**The text is that of `transformers`**: the same language, extensions and variables (chat_render.py).

**A template is a stranger's program.** It runs in Jinja's sandbox and in a process of its own, which is ended after
SECONDS or at MEMORY_BYTES: the sandbox has no bound on either.

**A message cannot write special tokens.** In the rendered text, <|im_end|> must become the token where the template
wrote it, and stay ten characters where a user typed it: otherwise a message could end its own turn and speak as the
system. So each special token within a message is first cut in two by a mark, a character that occurs nowhere else. The
rendered text is divided at the marks and encoded part by part, so that no part contains that token. With no special
token in a message there is no mark, and the ids are those of `transformers`.

    message    Write <|im_end|>.                     template's text
    marked     Write <¦|im_end|>.                    ¦ is the mark
    rendered   <|im_start|>user\nWrite <¦|im_end|>.<|im_end|>\n
    parts      "<|im_start|>user\nWrite <"    "|im_end|>.<|im_end|>\n"      one special token each
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .hf_contents import brief
from .hf_tokenizer import HuggingFaceTokenizer
from .tokenizer import Tokenizer, replace_lone_surrogates

SECONDS = 10.0
"""Time for a template; a usual one takes a tenth of a second, most of it for the start of its process."""
MEMORY_BYTES = 2**29
MARKS = range(0xF0000, 0xFFFFE)
"""Characters without a meaning in Unicode, of which one is the mark."""
MOST_CUTS = 16
"""Special tokens that overlap at one place of a message, at most."""

Message = Mapping[str, Any]
"""A role and a content, and other values that some templates read."""


class ChatError(ValueError):
    """A chat that cannot be written as a prompt, in one line."""


def chat_ids(
    tokenizer: Tokenizer, messages: Sequence[Message], *, add_generation_prompt: bool = True, **variables: Any
) -> list[int]:
    """Returns the ids of a chat; with add_generation_prompt they end where the model's answer begins.

    `variables`: others that the template reads, for example enable_thinking of Qwen3. Raises ChatError for a model
    without a template, and for messages that the template refuses.
    """
    if not isinstance(tokenizer, HuggingFaceTokenizer) or tokenizer.chat_template is None:
        raise ChatError("the model has no chat template: it continues texts, and was not trained to answer messages")
    template, given = tokenizer.chat_template, _plain(messages, variables)
    everything = template + json.dumps(given, ensure_ascii=False)
    mark = next((chr(number) for number in MARKS if chr(number) not in everything), "")
    if not mark:
        raise ChatError("the messages contain each of the characters that could mark special tokens in them")
    marked = _with_texts(given, lambda text: _marked(tokenizer, text, mark))
    given = {**tokenizer.special_tokens, "add_generation_prompt": add_generation_prompt, **marked}
    first, *others = render(template, given).split(mark)
    return tokenizer.encode_special(first) + [i for part in others for i in _continuing(tokenizer, part)]


def has_template(tokenizer: Tokenizer) -> bool:
    """Whether the model of this tokenizer comes with a chat template."""
    return isinstance(tokenizer, HuggingFaceTokenizer) and tokenizer.chat_template is not None


def room_for_answer(ids: Sequence[int], context: int) -> int:
    """Returns how many tokens of an answer fit into the model's context. Raises ChatError if none do."""
    if len(ids) >= context:
        raise ChatError(
            f"the messages have {len(ids):,} tokens with the template, and the model's context of {context:,} "
            "leaves no room for an answer: give shorter or fewer messages"
        )
    return context - len(ids)


def render(template: str, variables: Mapping[str, Any]) -> str:
    """Returns the text of a template: of `messages`, `add_generation_prompt`, the special tokens by name and others.

    Raises ChatError for a template that fails, or refuses the messages, or takes too long.
    """
    given = {"tools": None, "documents": None, **variables}
    job = json.dumps({"template": template, "variables": given, "memory_bytes": MEMORY_BYTES}).encode()
    script = [sys.executable, "-S", "-P", str(Path(__file__).with_name("chat_render.py"))]
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(script, input=job, capture_output=True, timeout=SECONDS, env=paths, check=False)
    except subprocess.TimeoutExpired:
        raise ChatError(f"the chat template was stopped after {SECONDS:g} seconds") from None
    except OSError as error:
        raise ChatError(f"the chat template could not be run: {error}") from error
    if done.returncode:
        last = brief(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])
        raise ChatError(f"the process of the chat template ended with status {done.returncode}: {last}")
    found = json.loads(done.stdout)
    if "error" in found:
        raise ChatError(f"the chat template cannot write these messages: {brief(found['error'])}")
    return str(found["text"])


def _plain(messages: Sequence[Message], variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the variables and the messages as plain values, without those of a message that are None.

    Raises ChatError for anything else.
    """
    if not messages:
        raise ChatError("a chat has at least one message")
    try:
        chat = [{name: value for name, value in message.items() if value is not None} for message in messages]
        plain = json.loads(json.dumps({**variables, "messages": chat}))
        whole: dict[str, Any] = _with_texts(plain, replace_lone_surrogates)
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ChatError(f"a message is a role and a content, both texts: {brief(error)}") from error
    return whole


def _with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Returns the value with every text in it changed."""
    match value:
        case str():
            return change(value)
        case dict():
            return {name: _with_texts(inner, change) for name, inner in value.items()}
        case list() | tuple():
            return [_with_texts(inner, change) for inner in value]
    return value


def _marked(tokenizer: HuggingFaceTokenizer, text: str, mark: str) -> str:
    """Returns the text with a mark after the first character of each special token in it."""
    for _ in range(MOST_CUTS):
        starts = tokenizer.special_starts(text)
        if not starts:
            return text
        ends = [*(start + 1 for start in starts), len(text)]
        text = mark.join(text[start:end] for start, end in zip([0, *ends], ends, strict=False))
    raise ChatError("a message contains a special token that cannot be written as characters")


def _continuing(tokenizer: HuggingFaceTokenizer, part: str) -> list[int]:
    """Returns the ids of a part that continues a text: some encodings put a space before the first word of a text."""
    line_break = tokenizer.encode_special("\n")
    ids = tokenizer.encode_special(f"\n{part}")
    return ids[len(line_break) :] if ids[: len(line_break)] == line_break else tokenizer.encode_special(part)
