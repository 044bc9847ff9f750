"""Small tokenizer.json files of the kinds that models have, trained in the test: no network, real structure."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = [
    "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak. It's 1234 o'clock, we'll go.",
    "def f(x):\n    return x + 1  # a comment\n\n\tif x:\n        pass\n",
    "Fürs Erste: élan, naïve, 低い, Привет мир, नमस्ते, 😀 👩‍👩‍👧 e\u0301",
]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace("{1,3}", "")
KINDS = ("gpt2", "llama3", "qwen", "smollm", "neox", "llama2", "mistral")


@cache
def tokenizer_files(kind: str) -> tuple[str, dict[str, Any]]:
    """Returns a tokenizer.json as text, and a tokenizer_config.json as an object."""
    made, settings = _byte_fallback(kind) if kind in ("llama2", "mistral") else _byte_level(kind)
    return made.to_str(), settings


def _byte_level(kind: str) -> tuple[Tokenizer, dict[str, Any]]:
    made = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    regex = {"llama3": LLAMA3, "qwen": QWEN}.get(kind)
    first = [pre_tokenizers.Digits(individual_digits=True)] if kind == "smollm" else []
    if regex:
        first = [pre_tokenizers.Split(Regex(regex), behavior="isolated")]
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [*first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not regex)]
    )
    made.normalizer = normalizers.NFC() if kind == "qwen" else None
    made.decoder = decoders.ByteLevel()
    ends = {
        "llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
        "qwen": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        "smollm": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    }.get(kind, ["<|endoftext|>"])
    trainer = trainers.BpeTrainer(
        vocab_size=380, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=ends if kind in ("smollm", "gpt2") else [],
    )  # fmt: skip
    made.train_from_iterator(TEXT, trainer)
    made.add_special_tokens(ends)
    if kind == "qwen":
        made.add_tokens(["<tool_call>", "</tool_call>"])
    if kind == "neox":
        made.add_tokens([AddedToken(" " * count, normalized=True) for count in range(24, 1, -1)])
    settings: dict[str, Any] = {"eos_token": ends[-1], "chat_template": "{{ messages[0].content }}"}
    if kind == "llama3":
        template = processors.TemplateProcessing(
            single="<|begin_of_text|> $A", special_tokens=[(ends[0], made.token_to_id(ends[0]))]
        )
        made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
        settings["bos_token"] = {"__type": "AddedToken", "content": ends[0], "special": True}
    return made, settings


def _byte_fallback(kind: str) -> tuple[Tokenizer, dict[str, Any]]:
    special = ["<unk>", "<s>", "</s>"]
    spaces = pre_tokenizers.Metaspace(prepend_scheme="first")
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = spaces
    trained.train_from_iterator(TEXT[:2], trainers.BpeTrainer(vocab_size=150, show_progress=False))
    learnt = json.loads(trained.to_str())["model"]
    tokens = [
        *special,
        *(f"<0x{value:02X}>" for value in range(256)),
        *sorted(learnt["vocab"], key=learnt["vocab"].get),
    ]
    made = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=[tuple(pair) for pair in learnt["merges"]],
            unk_token="<unk>", fuse_unk=True, byte_fallback=True,
        )
    )  # fmt: skip
    first: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*first, decoders.Strip(" ", 1, 0)])
    if kind == "llama2":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        made.pre_tokenizer = spaces
    made.add_special_tokens(special)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
