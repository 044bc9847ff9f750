"""Odd prompts, and odd values for every flag that takes one."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from fuzzing import HOSTILE, call, run_cases
from transformer import DecoderOnlyTransformer
from transformer.config import DataConfig, ModelConfig, TrainConfig
from transformer.text import load_tokenizer, train_bpe
from transformer.training import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
WORDS = [
    "", "-", "--", "---", "-x", "--help me", "--seed", "abc", "ü", "'", '"', "%s", "{}", "[red]", "$HOME", "~",
    "/dev/null",
    ".", "..", "gone.txt", "x" * 3_000, HOSTILE, "a\0b", "\ud800", "\udce9", "🚂" * 40, "\n\n", "\t", "<|endoftext|>",
    "None", "none", "True", "auto", "cpu", "best", "greedy", "top_k", "byte", "bpe99999999999", "fineweb",
]  # fmt: skip
NUMBERS = [
    "0", "-1", "1", "2", "3", "7", "0.5", "-0.0", "1e-300", "1e309", "nan", "inf", "-inf", "1_0", "0x10", "١٢", "1,5",
    str(2**31), str(2**63 - 1), str(2**63), str(10**30), "9" * 5_000, "1e5", "+3", " 4 ", "1 2",
]  # fmt: skip
SAMPLING = ["--temperature", "--top-k", "--top-p", "--min-p", "--repetition-penalty", "--seed"]
MODEL = ["--checkpoint", "m.pt", "--device", "cpu"]
FLAGS: dict[str, tuple[list[str], list[str]]] = {
    "generate": (
        [*MODEL, "--max-new-tokens", "2", "--prompt", "a"],
        [*SAMPLING, "--strategy", "--preset", "--stop", "--prompt", "--prompt-file", "--max-length", "--max-new-tokens",
         "--num-samples", "--checkpoint", "--device", "--kernels", "--int8", "--json", "--list-presets"],
    ),
    "evaluate": (
        [*MODEL, "--text-file", "notes.txt", "--max-tokens", "40"],
        ["--dataset", "--text-file", "--text-column", "--max-tokens", "--context", "--stride", "--batch-size",
         "--checkpoint", "--device", "--kernels", "--int8", "--json"],
    ),
    "inspect": (["m.pt"], ["--json", "best", "m.pt"]),
    "export-page": (["--checkpoint", "m.pt", "--out", "model.js"], ["--checkpoint", "--measure"]),
    "export": (["m.pt", "--to", "hf", "out", "--no-compare"], ["--to", "--kind", "--public", "hf", "m.pt"]),
    "plot": ([], ["--against", "gone"]),
    "compare": (["gone"], ["--max-tokens", "--context", "--stride", "--batch-size", "--text-file", "--out"]),
    "train": (
        ["--preset", "tiny", "--dataset", "gone.txt", "--checkpoint-dir", "new"],
        ["--d-model", "--num-heads", "--num-layers", "--d-ff", "--max-seq-len", "--dropout", "--learning-rate",
         "--batch-size", "--accumulation-steps", "--epochs", "--max-steps", "--encoding", "--seq-length", "--preset",
         "--tokens-per-epoch", "--validation-tokens", "--validation-fraction", "--seed", "--schedule", "--optimizer",
         "--warmup-fraction", "--patience", "--keep-last", "--position", "--norm", "--precision", "--set", "--resume",
         "--init-from", "--dry-run", "--vocab-size", "--save-every-minutes", "--cache-gb", "--num-workers"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with notes.txt and two models with fresh weights: m.pt of bytes, bpe.pt of a trained encoding."""
    folder = tmp_path_factory.mktemp("flags")
    text = "".join(f"Line {n}: {n * n} red hens on a hill.\n" for n in range(60))
    (folder / "notes.txt").write_text(text, encoding="utf-8")
    for name, tokenizer in (("m.pt", load_tokenizer("byte")), ("bpe.pt", train_bpe([text], 270))):
        shape = ModelConfig(
            tokenizer.vocab_size, d_model=8, num_heads=2, num_layers=1, d_ff=8, max_seq_len=16, dropout=0.0
        )
        config = TrainConfig(shape, DataConfig("notes.txt", tokenizer.name, seq_length=16))
        contents = checkpoint.model_contents(DecoderOnlyTransformer(shape), config, tokenizer)
        checkpoint.save(folder / name, {**contents, "step": 1, "tokens": 1})
    return folder


def odd_text(chance: Random) -> str:
    """Words, numbers and random characters, together."""
    parts = [chance.choice([*WORDS, *NUMBERS]) for _ in range(chance.randrange(3))]
    parts += ["".join(chr(chance.choice([chance.randrange(0x80), chance.randrange(0x11_0000)])) for _ in range(8))]
    return chance.choice(["", " "]).join(parts)


def test_a_prompt_is_continued_or_refused_in_one_line(folder: Path) -> None:
    def case(chance: Random) -> None:
        prompts = [odd_text(chance) for _ in range(chance.choice([1, 1, 3]))]
        preset = chance.choice(["greedy", "balanced", "very-creative"])
        start = ["generate", "--checkpoint", chance.choice(["m.pt", "bpe.pt"]), "--max-new-tokens", "3"]
        start += ["--preset", preset, "--device", "cpu", *chance.choice([[], ["--json"], ["--stop", odd_text(chance)]])]
        match chance.randrange(3):
            case 0:
                call(*start, *(part for prompt in prompts for part in ("--prompt", prompt)))
            case 1:
                Path("prompt.txt").write_text(prompts[0], encoding="utf-8", errors="surrogatepass")
                call(*start, "--prompt-file", "prompt.txt")
            case 2:
                call(*start, typed=prompts[0].encode(errors="surrogatepass"))

    run_cases(folder, 600, case, lambda: call("generate", *MODEL, "--prompt", "ab" * 2_000, "--max-new-tokens", "3"))


def test_a_flag_is_understood_or_refused_in_one_line(folder: Path) -> None:
    def case(chance: Random) -> None:
        name = chance.choice(list(FLAGS))
        start, flags = FLAGS[name]
        given = [
            part
            for flag in chance.sample(flags, chance.choice([1, 1, 2]) if len(flags) > 1 else 1)
            for value in [chance.choice([*WORDS, *NUMBERS])]
            for part in chance.choice([[flag, value], [flag, value], [f"{flag}={value}"], [flag]])
        ]
        call(name, *start, *given)

    def plain() -> None:
        for name, (start, _) in FLAGS.items():
            call(name, *start)

    run_cases(folder, 1_000, case, plain)
