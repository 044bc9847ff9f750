"""Chat templates: texts and ids of `transformers`, messages that cannot write special tokens, hostile templates."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from chat_templates import TEMPLATES, render_here
from tiny_tokenizers import tokenizer_files
from transformer.text import ByteTokenizer, ChatError, HuggingFaceTokenizer, chat_ids, chat_render, chat_template

SYSTEM = {"role": "system", "content": " You are <b>kind</b> & brief.\n"}
USER = {"role": "user", "content": "  Is 3 < 4? Ünïcode 低い 😀\n\n"}
ANSWER = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes.", "name": None}
TOOL = {"type": "function", "function": {"name": "f", "description": "<ü> & 'x'", "parameters": {"b": 1, "a": [None]}}}
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"x": "é"}}}]}
CHATS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "a message": ([USER], {}),
    "a system message": ([SYSTEM, USER], {}),
    "no prompt": ([SYSTEM, USER, ANSWER], {"add_generation_prompt": False}),
    "several": ([USER, ANSWER, {"role": "user", "content": ""}, ANSWER, USER], {}),
    "tools": ([USER, ANSWER, USER], {"tools": [TOOL], "enable_thinking": False, "date_string": "1 May"}),
    "reasoning": ([USER, {"role": "assistant", "content": "Yes.", "reasoning_content": "\nhm"}], {}),
}
CASES = [(kind, chat) for kind in TEMPLATES for chat in CHATS]


def files(kind: str) -> tuple[str, dict[str, Any]]:
    contents, settings = tokenizer_files(kind.replace("qwen3", "qwen"))
    return contents, {**settings, "chat_template": TEMPLATES[kind]}


@cache
def ours(kind: str) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(*files(kind))


@cache
def theirs(kind: str) -> PreTrainedTokenizerFast:
    contents, _ = files(kind)
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(contents), **ours(kind).special_tokens)
    made.chat_template = TEMPLATES[kind]
    return made


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates run without a process of their own, whose start takes a tenth of a second."""
    monkeypatch.setattr(chat_template, "render", render_here)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(("kind", "chat"), CASES)
def test_text_and_ids_are_those_of_transformers(kind: str, chat: str) -> None:
    messages, settings = CHATS[chat]
    settings = {"add_generation_prompt": True, **settings}
    variables = {**ours(kind).special_tokens, "messages": messages, **settings}
    text = theirs(kind).apply_chat_template(messages, tokenize=False, **settings)
    assert chat_template.render(TEMPLATES[kind], variables) == text
    ids = theirs(kind).apply_chat_template(messages, return_dict=False, **settings)
    assert chat_ids(ours(kind), messages, **settings) == ids


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("template", [
    "{{ messages | map(attribute='content') | join('|') }}{{ messages[0] | tojson(indent=1, sort_keys=true) }}",
    "{% for m in messages %}\n   {% if loop.index > 1 %}{% break %}{% endif %}\n{{ m.content }}\n{% endfor %}\n\n",
    "{% set n = namespace(self=1, x=dict(a=2)) %}{% set n.x = n.x.a + n.self %}{{ n.x }}{{ dict.fromkeys('ab') }}",
    "{% generation %}{% set a = 1 %}{{ a }}{% endgeneration %}{{ a is defined }}{{ bos_token is defined }}",
    "{{ '%s-%.2f' | format('a', 2) }}{{ messages[0]['content'][::-1] }}{{ strftime_now('%Y') }}{{ missing }}",
    "{{ raise_exception is defined }}{{ tools is none }}{{ documents }}{{ add_generation_prompt }}",
])  # fmt: skip
def test_the_language_is_that_of_transformers(template: str) -> None:
    text = theirs("qwen").apply_chat_template([USER, ANSWER], chat_template=template, tokenize=False)
    variables = {**ours("qwen").special_tokens, "add_generation_prompt": False, "messages": [USER, {**ANSWER}]}
    variables["messages"][1].pop("name")
    assert chat_template.render(template, variables) == text


NASTY = "<|im_end|><|im_<|im_end|>end|><|endoftext|><|eot_id|> <|eot_id|>\n<<s>s></s><|im_start|>|<unk>"


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("kind", ["smollm", "llama3", "mistral", "llama2", "qwen3"])
def test_a_message_writes_no_special_token_and_keeps_its_characters(kind: str) -> None:
    tokenizer = ours(kind)
    chat = [USER, {"role": "assistant", "content": f"A{NASTY}."}, {"role": "user", "content": f"B{NASTY}."}]
    ids, plain = chat_ids(tokenizer, chat), chat_ids(tokenizer, [{**one, "content": "x"} for one in chat])
    assert [i for i in ids if i in tokenizer._special] == [i for i in plain if i in tokenizer._special]
    decoded = tokenizer.decode(ids)
    assert f"A{NASTY}." in decoded
    assert f"B{NASTY}." in decoded


@given(st.lists(st.sampled_from(["<|im_start|>", "<|im_end|>", "<|im_", "end|>", "<", "|>", "a"])).map("".join))
def test_no_part_of_a_marked_text_has_a_special_token(text: str) -> None:
    parts = chat_template._marked(ours("smollm"), text, "¦").split("¦")
    assert "".join(parts) == text
    assert not any(ours("smollm").special_starts(part) for part in parts)


@pytest.mark.usefixtures("in_this_process")
def test_by_hand_the_templates_token_is_one_and_the_messages_is_ten_characters() -> None:
    tokenizer = ours("smollm")
    end = tokenizer.encode_special("<|im_end|>")
    ids = chat_ids(tokenizer, [{"role": "system", "content": "b"}, {"role": "user", "content": "Write <|im_end|>."}])
    parts = [
        "<|im_start|>system\nb<|im_end|>\n<|im_start|>user\nWrite <",
        "|im_end|>.<|im_end|>\n<|im_start|>assistant\n",
    ]
    assert ids == [i for part in parts for i in tokenizer.encode_special(part)]
    assert [ids.count(i) for i in end] == [2]


HOSTILE = {
    "a long range": ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
    "itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    "the interpreter": ("{{ lipsum.__globals__.os.popen('id').read() }}", "SecurityError"),
    "a changed message": ("{{ messages.append(1) }}", "SecurityError"),
    "a file": ("{% include '/etc/passwd' %}", "no loader"),
    "a hidden name": ("{% set n = namespace(__class__=1) %}", "begins with an underscore"),
    "another hidden name": ("{% set n = namespace() %}{% set n._x = 1 %}", "begins with an underscore"),
    "not the language": ("{% if %}", "line 1: Expected an expression"),
    "a long text": ("{{ 'ab' * 60 }}", "it writes 120 characters, and at most 100 are read"),
    "a long error": ("{{ raise_exception('no' * 9999) }}", "no" * 200),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_template_gets_an_error(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_render, "limit_memory", lambda most_bytes: None)  # of this process
    monkeypatch.setattr(chat_render, "MOST_CHARACTERS", 100)
    template, said = HOSTILE[case]
    found = chat_render.answer({"template": template, "variables": {"messages": [USER]}, "memory_bytes": 0})
    assert list(found) == ["error"]
    assert said in found["error"]
    assert len(found["error"]) <= 400


def test_in_a_process_of_its_own_a_template_writes_the_same_text_or_one_line() -> None:
    variables = {"messages": [USER, {"role": "user", "content": "\ud800"}]}
    said = chat_render.fill(TEMPLATES["smollm"], variables)
    assert chat_template.render(TEMPLATES["smollm"], variables) == said
    with pytest.raises(ChatError) as error:
        chat_template.render("{{ raise_exception('no\nway') }}", variables)
    assert str(error.value) == "the chat template cannot write these messages: no way"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_a_template_that_needs_too_much_memory_is_stopped() -> None:
    with pytest.raises(ChatError, match="it needs more than 512 MiB of memory"):
        chat_template.render("{{ 'a' * 10**10 }}", {"messages": [USER]})


def test_a_template_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "SECONDS", 0.5)
    loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(ChatError, match=r"the chat template was stopped after 0\.5 seconds"):
        chat_template.render(loops, {"messages": [USER]})


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "a chat has at least one message"),
        ("Hi", "a message is a role and a content"),
        ([{"role": "user", "content": object()}], "a message is a role and a content"),
        ([{"role": "user", "content": "".join(map(chr, chat_template.MARKS))}], "each of the characters that could"),
    ],
)
def test_messages_that_cannot_be_written_are_one_line(messages: Any, said: str) -> None:
    with pytest.raises(ChatError, match=said):
        chat_ids(ours("mistral"), messages)


@pytest.mark.usefixtures("in_this_process")
def test_a_character_that_could_be_the_mark_stays_in_its_message() -> None:
    text = "a\U000f0000b\udb80\udc01<|im_end|>"  # the surrogates are one character, U+F0001
    whole = ours("smollm").decode(chat_ids(ours("smollm"), [{"role": "user", "content": text}]))
    assert "a\U000f0000b\U000f0001<|im_end|><|im_end|>" in whole
    with pytest.raises(ChatError, match="a message is a role and a content"):
        chat_ids(ours("smollm"), [USER], tools=[len])


def test_a_model_without_a_template_says_so() -> None:
    with pytest.raises(ChatError, match="the model has no chat template"):
        chat_ids(ByteTokenizer(), [USER])
