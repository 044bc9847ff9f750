"""One self-contained HTML file from a page that consists of several: scripts, styles, pictures and values inside."""

from __future__ import annotations

import base64
import json
import mimetypes
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformer.cli.console import writing_files
from transformer.cli.export_page.options import lesson_path
from transformer.training.files import write_text


def page_with(document: str, script: str, name: str, values: Any) -> str:
    """Returns the page of `document` with values as JavaScript's GPT.`name`, in place of the file `script`.

    No text in the values can end the script that it is in. Errors are those of inlined().
    """
    root = lesson_path().parent
    literal = json.dumps(values).replace("<", "\\u003c")
    return inlined(root / document, root, {script: f"var GPT = GPT || {{}};\nGPT.{name} = {literal};\n"})


def write_page(path: Path, text: str) -> str:
    """Writes a page and returns a line about it."""
    with writing_files():
        write_text(path, text)
    return f"{path}: written, {len(text.encode()) / 1e6:.2f} MB; open it in a browser"


def inlined(document: Path, root: Path, scripts: Mapping[str, str]) -> str:
    """Returns an HTML document with everything inside that it loads from page/ and assets/ of the folder `root`.

    `scripts` maps names to texts that take the place of files. Raises ValueError for a script that cannot be inlined.
    """

    def read(name: str) -> str:
        return (root / name).read_text(encoding="utf-8")

    def style(found: re.Match[str]) -> str:
        return f"<style>\n{read(found[1])}</style>"

    def script(found: re.Match[str]) -> str:
        text = scripts[found[1]] if found[1] in scripts else read(found[1])
        if re.search(r"</script|<!--", text, re.IGNORECASE):
            raise ValueError(f"{found[1]} contains </script or <!--, which would end the script early: split the word")
        return f"<script>\n{text}</script>"

    def picture(found: re.Match[str]) -> str:
        content = base64.b64encode((root / found[2]).read_bytes()).decode("ascii")
        return f'{found[1]}="data:{mimetypes.guess_type(found[2])[0]};base64,{content}"'

    replacements: dict[str, Callable[[re.Match[str]], str]] = {
        r'<link rel="stylesheet" href="((?:page|assets)/[^"]+)">': style,
        r'\b(src|href)="((?:page|assets)/[^"]+\.(?:png|svg))"': picture,
        r'<script src="((?:page|assets)/[^"]+)"></script>': script,
    }
    text = document.read_text(encoding="utf-8")
    for pattern, replacement in replacements.items():
        text = re.sub(pattern, replacement, text)
    return text
