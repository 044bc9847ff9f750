"""Writes page/formula-font.css: the letters and signs of formulas, from STIX Two Math, as a font inside the page.

Browsers draw roots, large signs and tall brackets from a font with an OpenType MATH table. Not every system has one,
and without it Chromium omits the sign of a square root. The font comes from an npm package (SIL Open Font License):

    npm pack @fontsource/stix-two-math@5.3.0 && tar xzf fontsource-stix-two-math-5.3.0.tgz
    uv run --with brotli==1.2.1 python scripts/formula_font.py package/files/stix-two-math-latin-400-normal.woff

The result is the same byte for byte with the same versions of fontTools and brotli. The licence is in
page/formula-font-licence.txt. A changed font should have another name than the original: this one is Lesson Math.
"""

from __future__ import annotations

import base64
import hashlib
import io
import sys
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

ROOT = Path(__file__).resolve().parents[1]
STYLE = ROOT / "page" / "formula-font.css"
SOURCE_SHA256 = "794b8382140b9a061229bcdb5f3786c00e0bad91376d060fa1565184c90bf7c4"
NAME = "Lesson Math"
MATHEMATICAL_ITALICS = [*range(0x1D434, 0x1D468), 0x210E, *range(0x1D6E2, 0x1D71C)]
BOLD = [*range(0x1D400, 0x1D434)]
GREEK = [*range(0x391, 0x3AA), *range(0x3B1, 0x3CA), 0x3D5, 0x3F5]
SIGNS = "·×÷±−∓∗∘⊙⊗⊕√∑∏∫∂∇∆∞∈∉∝∼≈≃≠≡≤≥≪≫→←↔↦⇒⇔↑↓∥∣‖⟨⟩⌊⌋⌈⌉…⋯⋮⋱′″∀∃∅∩∪⊂⊆∧∨¬⊤⊥ℝℕℤ𝔼ℒ“”‘’–—°²³½"
CHARACTERS = {*range(0x20, 0x7F), *GREEK, *MATHEMATICAL_ITALICS, *BOLD, *map(ord, SIGNS)}


def subset(source: bytes) -> bytes:
    """Returns a WOFF2 font with CHARACTERS and the larger forms of their signs."""
    font = TTFont(io.BytesIO(source), recalcTimestamp=False)
    options = Options(layout_features=["kern", "ssty"], hinting=False, name_IDs=[0, 1, 2, 3, 4, 5, 6, 13, 14])
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=CHARACTERS)
    subsetter.subset(font)
    for record in list(font["name"].names):
        text = record.toUnicode().replace("STIX Two Math", NAME).replace("STIXTwoMath", NAME.replace(" ", ""))
        font["name"].setName(text, record.nameID, record.platformID, record.platEncID, record.langID)
    font.flavor = "woff2"
    written = io.BytesIO()
    font.save(written, reorderTables=None)
    return written.getvalue()


def style(font: bytes) -> str:
    """Returns the style sheet with the font inside: a page that is opened from a file may not load one."""
    packed = base64.b64encode(font).decode("ascii")
    return f"""/* Lesson Math: a part of STIX Two Math for the page's formulas, written by scripts/formula_font.py.
   Copyright 2001-2021 The STIX Fonts Project Authors (https://github.com/stipub/stixfonts).
   SIL Open Font License 1.1: formula-font-licence.txt. */

@font-face {{ font-family: "{NAME}"; src: url("data:font/woff2;base64,{packed}") format("woff2"); }}
"""


def main() -> None:
    source = Path(sys.argv[1]).read_bytes()
    found = hashlib.sha256(source).hexdigest()
    if found != SOURCE_SHA256:
        raise SystemExit(f"{sys.argv[1]} has sha256 {found}, not {SOURCE_SHA256}: is it STIX Two Math 2.12, as above?")
    STYLE.write_text(style(subset(source)), encoding="utf-8")
    print(f"{STYLE}: {STYLE.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
