"""A next-token distribution: a fixed one or a model's; formatting of probabilities and tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from transformer.cli.sampling.options import PROMPT
from transformer.generation import window_start
from transformer.text import Tokenizer, prompt_ids
from transformer.training.checkpoint import LoadedModel

Names = Callable[[int], str]
"""Returns the text of a token id."""
NEXT_TOKENS = {
    "mat": 0.32, "floor": 0.18, "sofa": 0.13, "bed": 0.10, "chair": 0.08, "table": 0.06,
    "roof": 0.05, "fence": 0.03, "piano": 0.02, "moon": 0.015, "throne": 0.01, "algebra": 0.005,
}  # fmt: skip


def fixed_distribution() -> tuple[Tensor, Tensor, Names]:
    """Returns logits (V,) of NEXT_TOKENS, the ids of those in the prompt (T,), and a function that names a token."""
    words = list(NEXT_TOKENS)
    seen = [number for number, word in enumerate(words) if word in PROMPT]
    return torch.tensor(list(NEXT_TOKENS.values())).log(), torch.tensor(seen), words.__getitem__


def model_distribution(loaded: LoadedModel, prompt: str) -> tuple[Tensor, Tensor, Names]:
    """Returns the model's logits (V,) after the prompt, the prompt's tokens (T,), and a function that names a token."""
    tokens = prompt_ids(loaded.tokenizer, prompt)
    start = window_start(len(tokens), loaded.model.config.max_seq_len)
    with torch.no_grad():
        window = torch.tensor([tokens[start:]], device=loaded.model.head.weight.device)  # (1, T)
        logits = loaded.model.next_logits(window)[0].cpu()  # (V,)
    return logits, torch.tensor(tokens), lambda token: token_name(loaded.tokenizer, token)


def bar(share: float, width: int = 5) -> str:
    """Returns a bar of up to `width` characters, drawn in eighths of a character; at least one eighth if share > 0."""
    eighths = max(round(share * width * 8), int(share > 0))
    return ("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8]).rstrip()


def token_name(tokenizer: Tokenizer, token: int) -> str:
    """Returns the text of a token in quotes, or its bytes if they are not complete characters."""
    spelt = tokenizer.decode_bytes([token])
    try:
        return repr(spelt.decode())
    except UnicodeDecodeError:
        return repr(spelt)
