"""The address of a model's page on the hub, and other ways to write hf:OWNER/NAME.

>>> spelled("https://huggingface.co/openai-community/gpt2/tree/main")
'hf:openai-community/gpt2@main'
>>> spelled("HF://openai-community/gpt2"), spelled("https://huggingface.co/datasets/openai/gsm8k"), spelled("my/model")
('hf:openai-community/gpt2', 'https://huggingface.co/datasets/openai/gsm8k', 'my/model')
"""

from __future__ import annotations

import re

OTHER_KINDS = "(?!(?:datasets|spaces|docs|papers|collections|blog|models|api)/)"
PAGE = re.compile(
    rf"(?:https?:/+)?(?:www\.)?(?:huggingface\.co|hf\.co)/{OTHER_KINDS}([^/\s?#]+/[^/\s?#]+)(?:/tree/([^/\s?#]+))?/?(?:[?#].*)?",
    re.ASCII | re.IGNORECASE,
)


def spelled(text: str) -> str:
    """Returns hf:OWNER/NAME[@REVISION] for another spelling of it, and any other text as it is."""
    if page := PAGE.fullmatch(text):
        return f"hf:{page[1]}@{page[2]}" if page[2] else f"hf:{page[1]}"
    return re.sub("^hf:/*(?=[^/])(.*?)/*$", r"hf:\1", text, flags=re.IGNORECASE | re.DOTALL)
