"""`generate`: what it writes, where it prints it, what it says about it, and the interactive mode."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from terminals import READY, run_with_lines, typing_to
from transformer.config import SAMPLING_PRESETS, SamplingConfig, Weights
from transformer.inference.text_stream import TextStream, generate_text
from transformer.kernels import accelerate, round_weights
from transformer.training import checkpoint

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("tiny_checkpoint")
SHORT = ("--max-new-tokens", "12", "--seed", "7")


def alone(prompt: str, seed: int = 7, sampling: SamplingConfig = SAMPLING_PRESETS["balanced"], tokens: int = 12) -> str:
    """What the library writes after the prompt, without it."""
    loaded = checkpoint.load_model(checkpoint.latest(Path()))
    writing = TextStream(loaded.model, loaded.tokenizer, [prompt], sampling, tokens, seeds=[seed])
    assert "".join(pieces[0] for pieces in writing) == writing.texts[0]
    return writing.texts[0]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """typed(b"text") is what comes through standard input, as from a pipe."""

    def pipe(text: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text), encoding="utf-8"))

    return pipe


# What is written


@pytest.mark.parametrize("preset", ["greedy", "balanced"])
@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (torch.nan, "nan.pt is not valid: weights that hold nan or infinite numbers: embeddings.token.weight"),
        (3e38, "row 0 has no probabilities to draw from: its logits are not finite numbers"),  # they overflow
    ],
)
def test_weights_without_a_finite_logit_are_an_error_and_not_a_text(
    command: Command, preset: str, weight: float, said: str
) -> None:
    """Greedy generation once wrote the first token for ever, with status 0."""
    contents = torch.load(checkpoint.latest(Path()), weights_only=True)
    contents["model"] = {name: torch.full_like(tensor, weight) for name, tensor in contents["model"].items()}
    torch.save(contents, "nan.pt")
    outcome = command("generate", "--checkpoint", "nan.pt", "--preset", preset, "--prompt", "x", *SHORT)
    assert outcome.status == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("flags", "weights"), [(["--int8"], "int8"), (["--weights", "int8"], "int8"), (["--weights", "float16"], "float16")]
)
def test_rounded_weights_write_what_the_rounded_model_writes_and_say_so(
    command: Command, flags: list[str], weights: Weights
) -> None:
    outcome = command("generate", "--prompt", "The cat", *flags, "--json", *SHORT)
    assert outcome.status == 0, outcome.err
    assert f"parameters in {weights}" in outcome.err
    loaded = checkpoint.load_model(checkpoint.latest(Path()))
    round_weights(accelerate(loaded.model), weights)
    text = generate_text(loaded.model, loaded.tokenizer, "The cat", SAMPLING_PRESETS["balanced"], 12, seed=7)
    written = json.loads(outcome.out)
    assert (written["int8"], written["weights"], written["texts"][0]["text"]) == (weights == "int8", weights, text)


def test_two_formats_of_weights_are_refused(command: Command) -> None:
    outcome = command("generate", "--prompt", "x", "--int8", "--weights", "float16", *SHORT)
    assert outcome.status == 2
    assert "--int8 and --weights float16 name two formats" in outcome.err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_step_writes_the_same_text(command: Command) -> None:
    torch._dynamo.reset()
    outcome = command("generate", "--prompt", "The cat", "--compile", *SHORT)
    assert outcome.status == 0, outcome.err
    assert outcome.out == "The cat" + alone("The cat") + "\n"


@pytest.mark.parametrize("preset", SAMPLING_PRESETS)
@pytest.mark.parametrize("prompt", ["", "The cat", "é低🙂\n"])
def test_standard_output_is_the_prompt_and_what_the_library_writes(command: Command, prompt: str, preset: str) -> None:
    outcome = command("generate", "--prompt", prompt, "--preset", preset, *SHORT)
    assert outcome.status == 0, outcome.err
    assert outcome.out == prompt + alone(prompt, sampling=SAMPLING_PRESETS[preset]) + "\n"


def test_greedy_text_is_what_the_models_own_generate_returns(command: Command) -> None:
    outcome = command("generate", "--prompt", "The cat", "--preset", "greedy", "--max-length", "30")
    loaded = checkpoint.load_model(checkpoint.latest(Path()))
    tokens = loaded.model.generate(torch.tensor([loaded.tokenizer.encode("The cat")]), max_length=30)
    assert tokens.shape == (1, 30)
    assert outcome.out == loaded.tokenizer.decode(tokens[0].tolist()) + "\n"


@pytest.mark.parametrize("text", [b"The cat\n", b"The cat", b"\xef\xbb\xbfThe cat\r\n"])
def test_a_file_and_a_pipe_are_prompts_without_their_last_line_break(
    command: Command, typed: Callable[[bytes], None], tmp_path: Path, text: bytes
) -> None:
    (tmp_path / "prompt.txt").write_bytes(text)
    typed(text)
    written = "The cat" + alone("The cat") + "\n"
    assert command("generate", "--prompt-file", "prompt.txt", *SHORT).out == written
    outcome = command("generate", *SHORT)
    assert outcome.out == written
    assert "reading the prompt from standard input" in outcome.err


def test_all_that_comes_through_a_pipe_is_one_prompt(command: Command, typed: Callable[[bytes], None]) -> None:
    """Each line was a prompt once, and an empty one ended the program, so that a page of text could not be given."""
    typed("The cat\n\nsät\n\n".encode())
    prompt = "The cat\n\nsät\n"
    assert command("generate", *SHORT).out == prompt + alone(prompt) + "\n"


def test_an_empty_pipe_begins_a_new_text(command: Command, typed: Callable[[bytes], None]) -> None:
    typed(b"")
    outcome = command("generate", *SHORT)
    assert outcome.out == alone("") + "\n"
    assert "empty prompt: a new text, starting from end-of-text" in outcome.err


def test_each_of_several_texts_is_what_its_seed_gives_alone(command: Command) -> None:
    outcome = command("generate", "--prompt", "The cat", "--prompt", "A", "--num-samples", "2", *SHORT)
    expected = [(prompt, seed) for prompt in ("The cat", "A") for seed in (7, 8)]
    assert outcome.out == "".join(
        f"[{number} of 4, seed {seed}]\n{prompt}{alone(prompt, seed)}\n"
        for number, (prompt, seed) in enumerate(expected, 1)
    )
    assert "seeds 7 to 8" in outcome.err
    assert re.search(r"^4 texts: \d+ tokens, [\d,]+ tokens/s$", outcome.err, re.MULTILINE)


def test_max_length_counts_the_prompt_of_each_text(command: Command) -> None:
    outcome = command("generate", "--prompt", "The cat", "--prompt", "A", "--max-length", "9", "--seed", "7", "--json")
    texts = json.loads(outcome.out)["texts"]
    assert [text["tokens"] for text in texts] == [2, 8]
    assert [text["text"] for text in texts] == [alone("The cat", tokens=2), alone("A", tokens=8)]


def test_the_text_ends_before_a_stop_text(command: Command) -> None:
    whole = alone("The cat", tokens=60)
    stop = next(character for character in whole if character.isalnum())
    outcome = command(
        "generate", "--prompt", "The cat", "--seed", "7", "--stop", "never there", "--stop", stop,
        "--max-new-tokens", "60", "--json",
    )  # fmt: skip
    (text,) = json.loads(outcome.out)["texts"]
    assert text["text"] == whole[: whole.index(stop)]
    assert text["ending"] == "stop string"


def test_a_stop_text_may_be_a_line_break() -> None:
    from transformer.cli.generate.options import WritingOptions

    assert WritingOptions(stop=(r"\n\n", "END")).stop_texts == ["\n\n", "END"]


def test_json_is_one_object_that_says_what_was_used(command: Command) -> None:
    outcome = command("generate", "--prompt", "The cat", "--json", "--min-p", "0.05", *SHORT)
    said = json.loads(outcome.out)
    (text,) = said.pop("texts")
    assert said == {
        "checkpoint": str(Path("checkpoints/model_epoch_3_byte.pt")),
        "encoding": "byte",
        "int8": False,
        "weights": "float32",
        "sampling": {**SAMPLING_PRESETS["balanced"].to_dict(), "min_p": 0.05},
        "max_new_tokens": 12,
        "max_length": None,
        "stop": [],
    }
    assert text.pop("seconds") > 0
    assert text.pop("tokens_per_second") > 0
    assert text.pop("text")
    assert text == {
        "prompt": "The cat", "tokens": 12, "prompt_tokens": 7, "unseen_prompt_tokens": 0, "seed": 7, "ending": "length",
    }  # fmt: skip


# What is said about it


def test_it_says_checkpoint_encoding_settings_seed_and_speed(command: Command) -> None:
    outcome = command("generate", "--prompt", "The cat", *SHORT)
    described, settings, speed = outcome.err.splitlines()
    assert described.startswith(str(Path("checkpoints/model_epoch_3_byte.pt")) + " (byte, ")
    assert settings == ("strategy top_k_top_p, temperature 0.8, top_k 50, top_p 0.9, seed 7, at most 12 new tokens")
    assert re.fullmatch(r"seed 7: 12 tokens, [\d,]+ tokens/s, ended by length", speed)


SAID = {
    "top_k above the vocabulary": (
        ("--top-k", "500"),
        "top_k=500 keeps all 257 tokens of the vocabulary",
    ),
    "a setting without effect": (("--preset", "creative", "--top-k", "7"), "top_k 7 has no effect with strategy top_p"),
    "samples that are the same": (("--preset", "greedy", "--num-samples", "2"), "all samples of a prompt are the same"),
    "a text beyond the context": (("--max-new-tokens", "60"), "the text is longer than the 24-token context"),
    "a prompt beyond it": (
        ("--prompt-file", "long.txt"),
        "the prompt has 50 tokens, the model's context 24: the model does not see the first 36",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_it_says_what_will_not_be_as_the_settings_seem_to_say(command: Command, tmp_path: Path, case: str) -> None:
    arguments, said = SAID[case]
    (tmp_path / "long.txt").write_text("x" * 50)
    prompt = () if "--prompt-file" in arguments else ("--prompt", "x")
    outcome = command("generate", *prompt, "--max-new-tokens", "1", "--seed", "1", *arguments)
    assert outcome.status == 0, outcome.err
    assert outcome.err.count(said) == 1


def test_a_terminal_gets_nothing_that_it_would_obey(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    lively = ("--strategy", "multinomial", "--temperature", "9", "--max-new-tokens", "150", "--seed", "1")
    commanding = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
    piped = command("generate", "--prompt", "\x1b[2J", *lively).out
    assert len(commanding.findall(piped)) > 3
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = command("generate", "--prompt", "\x1b[2J", *lively).out
    assert shown == commanding.sub("\ufffd", piped)


SLIPS = {
    "a prompt file that is missing": (("--prompt-file", "gone.txt"), "cannot be read from gone.txt: No such file"),
    "a prompt file that is none": (("--prompt-file", "folder"), "the prompt cannot be read from folder"),
    "a prompt file that is binary": (("--prompt-file", "junk.txt"), "junk.txt is not UTF-8 text: byte 1 is 0xff"),
    "two sources of the prompt": (("--prompt", "x", "--prompt-file", "junk.txt"), "give one of them"),
    "two lengths": (("--prompt", "x", "--max-length", "9", "--max-new-tokens", "9"), "give one of them"),
    "no room": (
        ("--prompt", "The cat", "--max-length", "7"),
        "max_length=7 leaves no tokens after a prompt of 7 tokens",
    ),
    "a length of 0": (("--prompt", "x", "--max-length", "0"), "max_length=0 must be at least 1"),
    "a length of 10**30": (
        ("--prompt", "x", "--max-new-tokens", str(10**30)),
        f"max_new_tokens={10**30} must be at most 10000000",
    ),
    "10**11 samples": (("--prompt", "x", "--num-samples", str(10**11)), "num_samples=100000000000 must be at most"),
    "a last seed too large": (
        ("--prompt", "x", "--num-samples", "2", "--seed", str(2**63 - 1)),
        f"seed={2**63} must be from 0",
    ),
    "no samples": (("--prompt", "x", "--num-samples", "0"), "num_samples=0 must be at least 1"),
    "nowhere to stop": (("--prompt", "x", "--stop", ""), "a stop string must not be empty"),
    "no temperature": (("--prompt", "x", "--temperature", "nan"), "temperature=nan"),
    "a share above 1": (("--prompt", "x", "--min-p", "1.5"), "min_p=1.5 must be from 0 to 1"),
    "a penalty of 0": (("--prompt", "x", "--repetition-penalty", "0"), "repetition_penalty=0.0 must be"),
    "a seed below 0": (("--prompt", "x", "--seed", "-1"), "seed=-1"),
    "a preset misspelt": (("--prompt", "x", "--preset", "very_creative"), "did you mean 'very-creative'?"),
    "text for a number": (("--prompt", "x", "--max-length", "many"), "--max-length"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_one_line(command: Command, tmp_path: Path, slip: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "junk.txt").write_bytes(b"x\xff")
    arguments, said = SLIPS[slip]
    outcome = command("generate", *arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.splitlines()[-1].startswith("error: ")
    assert said in outcome.err.splitlines()[-1]


def test_json_has_no_interactive_mode(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    outcome = command("generate", "--json")
    assert outcome.status == 2
    assert "--json has no interactive mode: give --prompt, --prompt-file, or text on standard input" in outcome.err


# The interactive mode


class Conversation:
    """The shell, told line by line."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        from transformer.cli.console import console
        from transformer.cli.generate.options import WritingOptions
        from transformer.cli.generate.output import Pen
        from transformer.cli.generate.repl import Shell

        self.capsys = capsys
        loaded = checkpoint.load_model(checkpoint.latest(folder))
        lines: Iterator[str] = iter(())
        self.shell = Shell(Pen(loaded, console(stderr=True)), WritingOptions(max_new_tokens=5), 7, lambda: next(lines))

    def told(self, *lines: str) -> tuple[str, str]:
        """Returns what lands on standard output and error when these lines are typed and then Ctrl-D."""
        self.capsys.readouterr()
        run_with_lines(self.shell, lines)
        out, err = self.capsys.readouterr()
        return out, err.split("/again.\n", 1)[1]


@pytest.fixture
def conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Conversation:
    monkeypatch.chdir(tmp_path)
    return Conversation(tmp_path, capsys)


def test_every_line_is_a_prompt_and_has_a_seed_of_its_own(conversation: Conversation) -> None:
    out, err = conversation.told("The cat", "", "//quit", "a\n/quit")
    prompts = ["The cat", "", "/quit", "a\n/quit"]
    assert out == "".join(prompt + alone(prompt, 7 + n, tokens=5) + "\n" for n, prompt in enumerate(prompts))
    assert re.findall(r"^seed (\d+):", err, re.MULTILINE) == ["7", "8", "9", "10"]


def test_again_writes_with_the_next_seed(conversation: Conversation) -> None:
    out, err = conversation.told("/again", "The cat", "/again")
    assert out == "".join(f"The cat{alone('The cat', seed, tokens=5)}\n" for seed in (7, 8))
    assert err.startswith("error: /again: there is no text yet\n")


def test_commands_change_the_settings(conversation: Conversation) -> None:
    _, err = conversation.told(
        "/preset creative", "/temperature 0.5", "/strategy top_k", "/top-k 5", "/min-p 0.1", "/repetition-penalty 1.2",
        "/seed 3", "/length 9", "/stop \\n", "/stop END", "/settings",
    )  # fmt: skip
    assert err.splitlines()[-1] == (
        "strategy top_k, temperature 0.5, top_k 5, min_p 0.1, repetition_penalty 1.2, seed 3, at most 9 new tokens, "
        "up to '\\n', up to 'END'"
    )
    out, err = conversation.told("/stop", "The cat")
    sampling = SamplingConfig("top_k", 0.5, 5, 0.95, 0.1, 1.2)
    assert out == "The cat" + alone("The cat", 3, sampling, 9) + "\n"
    _, err = conversation.told("/seed random", "/settings", "/top-p 0.5")
    first, second, third, remark = err.splitlines()
    assert first == second
    assert "seed 4," not in first
    assert remark == "top_p 0.5 has no effect with strategy top_k"
    assert third == first


WRONG = {
    "/presett creative": "there is no command /presett; did you mean '/preset'? (/help lists them",
    "/preset creativ": "there is no preset 'creativ': one of greedy, precise, balanced, creative, very-creative; did",
    "/strategy topk": "strategy='topk' is not one of greedy",
    "/temperature hot": "temperature='hot' is not a finite number",
    "/temperature -1": "temperature=-1.0 must not be below 0",
    "/temperature nan": "temperature=nan is not a finite number",
    "/top-k 0.5": "top_k='0.5' is not a whole number",
    "/seed -3": "seed=-3 must be from 0",
    "/seed soon": "seed='soon' is not a whole number",
    "/length 0": "max_new_tokens=0 must be at least 1",
    "/length 1000000000000": "max_new_tokens=1000000000000 must be at most 10000000",
    "/": "there is no command / (/help lists them; // starts a text with /)",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_told_in_one_line_and_changes_nothing(conversation: Conversation, line: str) -> None:
    before = conversation.shell.options, conversation.shell.next_seed
    out, err = conversation.told(line)
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith(f"error: {WRONG[line]}")
    assert (conversation.shell.options, conversation.shell.next_seed) == before


def test_help_names_every_command(conversation: Conversation) -> None:
    from transformer.cli.generate.repl import COMMANDS

    _, err = conversation.told("/help")
    assert [line.split()[0] for line in err.splitlines()[:-1]] == list(COMMANDS)
    assert {"/preset", "/temperature", "/top-k", "/top-p", "/min-p", "/seed", "/length", "/quit"} <= set(COMMANDS)


@pytest.mark.parametrize("line", ["/quit", "/quit now", " /quit", "/exit", "/QUIT"])
def test_quit_ends(conversation: Conversation, line: str) -> None:
    assert conversation.told(line, "The cat") == ("", "")


def test_commands_are_understood_as_a_person_means_them(conversation: Conversation) -> None:
    """`/quit now` was a misspelt command, `/seed` no whole number, and `/max-new-tokens 50` unknown."""
    _, err = conversation.told("/seed", "/top-p", "/max-new-tokens 50", "/Temperature 0.5", "/max-length 90")
    lines = err.splitlines()
    assert lines[0] == "/seed N: seed of the next text; random: a new one"
    assert "seed 7, at most 5 new tokens" in lines[1]
    assert lines[2] == "/top-p VALUE"
    assert "at most 50 new tokens" in lines[4]
    assert "temperature 0.5" in lines[5]
    assert "at most 90 tokens with the prompt" in lines[6]
    assert conversation.told("/num-samples 2", "The cat")[0].count("The cat") == 2


LINES = {
    "keys": ("The dot\x1b[D\x7fg\r", "The dgt"),
    "a paste of several lines": ("\x1b[200~The cat\r\nsat\n\x1b[201~\r", "The cat\nsat\n"),
    "a line break": ("The\x1b\rcat\r", "The\ncat"),
    "a command completed": ("/pres\tve\t\r", "/preset very-creative"),
    "a text that is not completed": ("gre\t\r", "gre"),
}


@pytest.mark.parametrize("case", LINES)
def test_a_line_is_typed(case: str) -> None:
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    from transformer.cli.generate.line_input import line_reader
    from transformer.cli.generate.repl import COMMANDS, VALUES

    typed, line = LINES[case]
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        read = line_reader(tuple(COMMANDS), VALUES)
        pipe.send_text(typed)
        assert read().rstrip(" ") == line
        pipe.send_text("half a li\x03")
        with pytest.raises(KeyboardInterrupt):
            read()
        pipe.send_text("\x04")
        with pytest.raises(EOFError):
            read()


# At a terminal


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_a_person_at_a_terminal_writes_changes_the_settings_and_stops_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with typing_to("generate", "--seed", "7", "--max-new-tokens", "5") as terminal:
        assert "model_epoch_3_byte.pt (byte, " in terminal.until(READY)
        terminal.type(b"The cat\r")
        assert "The cat" + alone("The cat", tokens=5).replace("\n", "\r\n") in terminal.until(b"ended by length")
        terminal.until(READY)
        terminal.type(b"/preset gre\t\r")
        assert "strategy greedy, seed 8" in terminal.until(READY)
        terminal.type(b"/length 1000000\r")
        terminal.until(READY)
        terminal.type(b"Long\r")
        terminal.until(b"\x1b[?2004l" + b"Long")  # the line has been read and the text begins
        terminal.type(b"\x03")
        assert "stopped" in terminal.until(READY)
        terminal.type(b"half a li\x03")
        terminal.until(READY)
        terminal.type(b"/quit\r")
        assert terminal.running.wait(120) == 0


def test_a_prompt_may_start_with_a_dash(command: Command) -> None:
    for flags in (("--prompt", "- milk"), ("--prompt=- milk",)):
        outcome = command("generate", *flags, *SHORT)
        assert outcome.out == "- milk" + alone("- milk") + "\n", outcome.err
