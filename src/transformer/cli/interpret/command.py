"""The interpret command; commands/interpret.py documents it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformer.cli.console import console, writing_files
from transformer.cli.export_page.options import lesson_path
from transformer.cli.inlining import inlined
from transformer.cli.interpret.film import write_film
from transformer.cli.interpret.options import InterpretOptions
from transformer.cli.interpret.rows import habit_rows
from transformer.cli.interpret.terminal import show_habits, show_prompt
from transformer.cli.json_output import print_json
from transformer.cli.models import open_model
from transformer.cli.progress import Show, progress_bar
from transformer.interpret.heads import head_habits
from transformer.interpret.question import Question
from transformer.interpret.report import chosen_head, habits_report, packed_bytes, prompt_report
from transformer.text.tokenizer import prompt_ids
from transformer.training.checkpoint import LoadedModel
from transformer.training.files import write_text

DOCUMENT, REPORT = "page/inside/inside.html", "page/inside/report.js"


def main(options: InterpretOptions) -> None:
    if options.film is not None:
        write_film(options.film, options.out or Path("film.html"))
        return
    loaded = open_model(options.checkpoint, options.device)
    out, notes = console(), console(stderr=True)
    notes.print(loaded.description, style="dim", soft_wrap=True)
    question = asked(options, loaded)
    notes.print(size_line(question, loaded), style="dim", soft_wrap=True)
    with progress_bar(notes, "measuring habits") as show:
        report = about(loaded) | measured(options, question, loaded, show)
    if options.json:
        print_json({name: value for name, value in report.items() if name != "attention"})
    else:
        if question is not None:
            show_prompt(report, out)
        show_habits(report["habits"], out)
    if options.page is not None:
        written = write_page(options.page, report)
        (notes if options.json else out).print(written, soft_wrap=True)


def asked(options: InterpretOptions, loaded: LoadedModel) -> Question | None:
    """Returns the question about the prompt, if there is one. Raises ValueError before anything takes time."""
    if options.prompt is None:
        return None
    question = Question(prompt_ids(loaded.tokenizer, options.prompt), options.chosen_head)
    question.check(loaded.model)
    return question


def size_line(question: Question | None, loaded: LoadedModel) -> str:
    """Returns a line about the size of the work, printed before it begins."""
    config = loaded.model.config
    line = f"{config.num_layers} layers of {config.num_heads} heads"
    if question is not None:
        length = len(question.prompt)
        line += f" over {length} tokens: {packed_bytes(config, length) / 1e6:.2f} MB of attention weights in the page"
    return line


def measured(options: InterpretOptions, question: Question | None, loaded: LoadedModel, show: Show) -> dict[str, Any]:
    """Returns everything in the report that is computed."""
    report = {} if question is None else prompt_report(loaded.model, loaded.tokenizer, question)
    rows, sentence = habit_rows(loaded.model, loaded.tokenizer, options.text_file)
    habits = head_habits(loaded.model, rows, lambda done, total: show("measuring habits", done, total))
    return report | {"chosen": chosen_head(question, habits), "habits": habits_report(habits, sentence)}


def about(loaded: LoadedModel) -> dict[str, Any]:
    """Returns what the report says about the model."""
    config, contents = loaded.model.config, loaded.contents
    imported = contents.get("imported", {}).get("source")
    parameters = sum(loaded.model.parameter_counts().values())
    facts = (
        f"imported from {imported}" if imported else f"step {contents['step']:,}, {contents['tokens']:,} tokens seen",
        f"{parameters:,} parameters", f"{config.num_layers} layers of {config.num_heads} heads",
        f"width {config.d_model}", f"{config.position} positions", f"encoding {loaded.tokenizer.name}",
    )  # fmt: skip
    name = imported or f"{loaded.path.absolute().parent.name}/{loaded.path.name}"
    return {"model": name, "about": facts, "layers": config.num_layers, "heads": config.num_heads}


def write_page(path: Path, report: Mapping[str, Any]) -> str:
    """Writes the page and returns a line about it."""
    text = page(report)
    with writing_files():
        write_text(path, text)
    return f"{path}: written, {len(text.encode()) / 1e6:.2f} MB; open it in a browser"


def page(report: Mapping[str, Any]) -> str:
    """Returns the page with the report inside, of which no text can end the script that it is in."""
    root = lesson_path().parent
    values = json.dumps(report).replace("<", "\\u003c")
    return inlined(root / DOCUMENT, root, {REPORT: f"var GPT = GPT || {{}};\nGPT.report = {values};\n"})
