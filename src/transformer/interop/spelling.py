"""The address of a model's page on the hub, and other ways to write hf:OWNER/NAME.

>>> spelled("https://huggingface.co/openai-community/gpt2/tree/main")
'hf:openai-community/gpt2@main'
>>> spelled("https://huggingface.co/someone/some/blob/main/some-Q4_K_M.gguf")
'hf:someone/some/some-Q4_K_M.gguf@main'
>>> spelled("HF://openai-community/gpt2"), spelled("https://huggingface.co/datasets/openai/gsm8k"), spelled("my/model")
('hf:openai-community/gpt2', 'https://huggingface.co/datasets/openai/gsm8k', 'my/model')
"""

from __future__ import annotations

import re

OTHER_KINDS = "(?!(?:datasets|spaces|docs|papers|collections|blog|models|api)/)"
PAGE = re.compile(
    rf"(?:https?:/+)?(?:www\.)?(?:huggingface\.co|hf\.co)/{OTHER_KINDS}([^/\s?#]+/[^/\s?#]+)"
    r"(?:/(?:tree|blob|resolve)/([^/\s?#]+)(/[^\s?#]+\.gguf)?)?/?(?:[?#].*)?",
    re.ASCII | re.IGNORECASE,
)


def spelled(text: str) -> str:
    """Returns hf:OWNER/NAME[/FILE.gguf][@REVISION] for another spelling of it, and any other text as it is."""
    if page := PAGE.fullmatch(text):
        return f"hf:{page[1]}{page[3] or ''}" + (f"@{page[2]}" if page[2] else "")
    return re.sub("^hf:/*(?=[^/])(.*?)/*$", r"hf:\1", text, flags=re.IGNORECASE | re.DOTALL)
