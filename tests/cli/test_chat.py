"""`generate --chat`: one answer, a conversation, a full context, and what is refused."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import transformer
from chat_templates import render_here, save_chat_model
from terminals import READY, run_with_lines, typing_to
from transformer.text import chat_ids, chat_template
from transformer.training import checkpoint

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., Any]
SHORT = ("--max-new-tokens", "6", "--seed", "7")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> transformer.Pretrained:
    """The latest checkpoint in the command's folder; its template runs in this process."""
    monkeypatch.setattr(chat_template, "render", render_here)
    monkeypatch.chdir(tmp_path)
    return transformer.load(save_chat_model(tmp_path / "checkpoints"))


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def test_the_answer_alone_is_printed(command: Command, model: transformer.Pretrained) -> None:
    said = command("generate", "--chat", "--prompt", "Is it far?", *SHORT)
    assert said.status == 0, said.err
    assert said.out == model.chat("Is it far?", 6, seed=7) + "\n"
    several = command("generate", "--chat", "--system", "Yes.", "--prompt", "a", "--prompt", "b", *SHORT)
    answers = [model.chat([system("Yes."), user(text)], 6, seed=7) for text in "ab"]
    assert several.out == "".join(f"[{i} of 2, seed 7]\n{answer}\n" for i, answer in enumerate(answers, 1))


def test_json_has_the_message_the_answer_and_the_system_message(
    command: Command, model: transformer.Pretrained
) -> None:
    said = json.loads(command("generate", "--chat", "--system", "Yes.", "--prompt", "a", "--json", *SHORT).out)
    assert (said["chat"], said["system"], said["max_new_tokens"]) == (True, "Yes.", 6)
    (text,) = said["texts"]
    ids = chat_ids(model.tokenizer, [system("Yes."), user("a")])
    assert (text["prompt"], text["prompt_tokens"]) == ("a", len(ids))
    assert text["text"] == model.chat([system("Yes."), user("a")], 6, seed=7)


WRONG = {
    "no message": (("--chat", "--prompt", " \n"), "the message is empty"),
    "a system message alone": (("--system", "x", "--prompt", "x"), "--system is the system message of a chat: give"),
    "a long message": (
        ("--chat", "--prompt", "x " * 200),
        "and the model's context of 160 leaves no room for an answer",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_line(command: Command, model: transformer.Pretrained, case: str) -> None:
    arguments, said = WRONG[case]
    outcome = command("generate", *arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.splitlines()[-1].startswith("error: ")
    assert said in outcome.err.splitlines()[-1]


@pytest.mark.usefixtures("tiny_checkpoint")
def test_a_model_without_a_template_is_one_line(command: Command) -> None:
    outcome = command("generate", "--chat", "--prompt", "x")
    assert (outcome.status, outcome.out) == (2, "")
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert "checkpoints/model_epoch_3_byte.pt has no chat template, so it cannot answer messages" in line


class Conversation:
    """The interactive mode, line by line."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *flags: str) -> None:
        from transformer.cli.console import console
        from transformer.cli.generate.command import conversation
        from transformer.cli.generate.options import read_options
        from transformer.cli.generate.output import Pen
        from transformer.cli.generate.repl import Shell

        self.capsys, options = capsys, read_options(["--chat", *SHORT, *flags])
        pen = Pen(checkpoint.load_model(checkpoint.latest(Path())), console(stderr=True))
        pen.chat = self.chat = conversation(options, pen)
        self.shell = Shell(pen, options, 7, str)

    def told(self, *lines: str) -> tuple[str, str]:
        """Returns what is on standard output and error when these lines are typed and then Ctrl-D."""
        self.capsys.readouterr()
        run_with_lines(self.shell, lines)
        out, err = self.capsys.readouterr()
        return out, err.split("another answer.\n", 1)[1]


def test_a_conversation_is_kept_until_it_is_cleared(
    model: transformer.Pretrained, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Conversation(capsys)
    out, _ = shell.told("a", "", "b", "//c")
    chat, answers = [], []
    for number, text in enumerate(["a", "b", "/c"]):
        chat.append(user(text))
        answers.append(model.chat(chat, 6, seed=7 + number))
        chat.append(assistant(answers[-1]))
    assert out == "".join(answer + "\n" for answer in answers)
    out, err = shell.told("/clear", "/again", "a")
    assert out == model.chat("a", 6, seed=10) + "\n"
    assert err.startswith("a new conversation\nerror: /again: there is no text yet\n")
    out, err = shell.told("/system Say yes.", "a", "/system", "a")
    assert out == model.chat([system("Say yes."), user("a")], 6, seed=11) + "\n" + model.chat("a", 6, seed=12) + "\n"
    assert "a new conversation with the system message 'Say yes.'" in err


def test_again_replaces_the_last_answer(model: transformer.Pretrained, capsys: pytest.CaptureFixture[str]) -> None:
    shell = Conversation(capsys)
    out, _ = shell.told("a", "/again", "b")
    first, second = (model.chat("a", 6, seed=seed) for seed in (7, 8))
    assert out == f"{first}\n{second}\n" + model.chat([user("a"), assistant(second), user("b")], 6, seed=9) + "\n"


def test_if_the_context_is_full_the_oldest_messages_are_dropped_but_not_the_system_message(
    model: transformer.Pretrained, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Conversation(capsys, "--system", "S")
    out, err = shell.told(*["one two three four five"] * 5)
    assert len(out.splitlines()) >= 5
    assert "the context of 160 tokens is full: the oldest message and answer are dropped" in err
    ids = shell.chat.prompt("x", 6)
    assert model.tokenizer.decode(ids).startswith("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\none two")
    assert len(ids) + 6 <= 160
    kept = list(shell.chat.exchanges)
    out, err = shell.told("x " * 200, "/length 1000", "/preset greedy", "y")
    assert err.startswith("error: the messages have ")
    assert "leaves no room for an answer" in err
    assert shell.chat.exchanges[0] in kept
    assert "the context of 160 tokens is full: the answer may not be complete" in err


def test_an_answer_that_ctrl_c_stops_stays_in_the_conversation(
    model: transformer.Pretrained, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformer.cli.generate import output

    shell = Conversation(capsys)
    print_stream = output.print_stream

    def stopped(prompt: str, pieces: Any) -> None:
        def some() -> Any:
            for _ in range(3):
                yield next(pieces)
            raise KeyboardInterrupt

        print_stream(prompt, some())

    monkeypatch.setattr(output, "print_stream", stopped)
    out, err = shell.told("a")
    assert err == "stopped\n"
    assert shell.chat.exchanges == [("a", out[:-1])]
    assert model.chat("a", 6, seed=7).startswith(out[:-1])


def test_help_names_the_commands_of_a_chat(model: transformer.Pretrained, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = Conversation(capsys).told("/help", "/num-samples")
    words = [line.split()[0] for line in err.splitlines() if line]
    assert {"/clear", "/system", "/again", "/preset"} <= set(words)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_a_person_at_a_terminal_talks_to_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = transformer.load(save_chat_model(tmp_path / "checkpoints", 2000))

    def visible(text: str) -> str:
        return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text).replace("\n", "\r\n")

    with typing_to("generate", "--chat", *SHORT) as terminal:
        assert "Type a message and press Enter." in terminal.until(READY)
        terminal.type(b"Is it far?\r")
        first = model.chat("Is it far?", 6, seed=7)
        assert visible(first) in terminal.until(b"seed 7: ")
        terminal.until(READY)
        terminal.type(b"\r")
        terminal.until(READY)
        terminal.type(b"And now?\r")
        second = model.chat([user("Is it far?"), assistant(first), user("And now?")], 6, seed=8)
        assert visible(second) in terminal.until(b"seed 8: ")
        terminal.until(READY)
        terminal.type(b"/cl\t\r")
        assert "a new conversation" in terminal.until(READY)
        terminal.type(b"/length 100000\r")
        terminal.until(READY)
        terminal.type(b"/temperature 2\r")
        terminal.until(READY)
        terminal.type(b"Long\r")
        terminal.until(b"\x1b[?2004l")
        time.sleep(1)
        terminal.type(b"\x03")
        assert re.search("stopped|ended by", terminal.until(READY))
        terminal.type(b"\x04")
        assert terminal.running.wait(120) == 0
