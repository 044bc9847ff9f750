"""One self-contained HTML file from a page that consists of several: scripts, styles and pictures inside."""

from __future__ import annotations

import base64
import mimetypes
import re
from collections.abc import Callable, Mapping
from pathlib import Path


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
