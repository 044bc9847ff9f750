"""The interpret command; commands/interpret.py documents it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformer.cli.console import console
from transformer.cli.formatting import counted
from transformer.cli.inlining import page_with, write_page
from transformer.cli.interpret.film import write_film
from transformer.cli.interpret.options import InterpretOptions
from transformer.cli.interpret.rows import habit_rows
from transformer.cli.interpret.terminal import show_report
from transformer.cli.json_output import print_json
from transformer.cli.models import open_model
from transformer.cli.progress import Show, progress_bar
from transformer.interop.model_card import last_part
from transformer.interpret.heads import head_habits, strongest
from transformer.interpret.question import Question, check, complete, read_question
from transformer.interpret.report import habits_report, patching_passes, prompt_report
from transformer.interpret.report_values import packed_bytes
from transformer.training.checkpoint import LoadedModel

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
    with progress_bar(notes, "reading the prompt" if question else "measuring habits") as show:
        report = about(loaded) | computed(options, question, loaded, show)
    try:
        if options.json:
            print_json({name: value for name, value in report.items() if name != "attention"})
        else:
            show_report(report, out)
    finally:  # the page is also written if the reader of a pipe has ended, as in `... | head`
        line = "" if options.page is None else write_page(options.page, page(report))
    if line:
        (notes if options.json else out).print(line, soft_wrap=True)


def asked(options: InterpretOptions, loaded: LoadedModel) -> Question | None:
    """Returns the question about the prompt, if there is one. Raises ValueError before anything takes time."""
    if options.prompt is None:
        return None
    question = read_question(
        loaded.tokenizer, options.prompt, options.target, options.rather_than, options.versus, options.chosen_head
    )
    check(question, loaded.model)
    return complete(question, loaded.model)


def size_line(question: Question | None, loaded: LoadedModel) -> str:
    """Returns a line about the size of the work, printed before it begins."""
    config = loaded.model.config
    line = f"{config.num_layers} layers of {config.num_heads} heads"
    if question is not None:
        length = len(question.prompt)
        size = f"{packed_bytes(config, length) / 1e6:.2f} MB"
        line += f" over {counted(length, 'token')}: {size} of attention weights in the page"
        if question.versus:
            line += f"; patching takes {patching_passes(loaded.model)} passes, each of several copies of the prompt"
    return line


def computed(options: InterpretOptions, question: Question | None, loaded: LoadedModel, show: Show) -> dict[str, Any]:
    """Returns everything in the report that is computed."""
    rows, sentence = habit_rows(loaded.model, loaded.tokenizer, options.text_file)
    report = {} if question is None else prompt_report(loaded.model, loaded.tokenizer, question, show)
    habits = head_habits(loaded.model, rows, lambda done, total: show("measuring habits", done, total))
    chosen = list(strongest(habits["induction"]))
    return {"chosen": chosen, "habits": habits_report(habits, sentence), **report}


def about(loaded: LoadedModel) -> dict[str, Any]:
    """Returns what the report says about the model."""
    config, contents = loaded.model.config, loaded.contents
    imported = last_part(contents.get("imported", {}).get("source", ""))  # a page may be shown to others
    parameters = sum(loaded.model.parameter_counts().values())
    facts = (
        loaded.path.name,
        f"imported from {imported}" if imported else f"step {contents['step']:,}, {contents['tokens']:,} tokens seen",
        f"{parameters:,} parameters", f"{config.num_layers} layers of {config.num_heads} heads",
        f"width {config.d_model}", f"{config.position} positions", f"encoding {loaded.tokenizer.name}",
    )  # fmt: skip
    name = imported or loaded.path.absolute().parent.name
    return {"model": name, "about": facts, "layers": config.num_layers, "heads": config.num_heads}


def page(report: Mapping[str, Any]) -> str:
    """Returns the page with the report inside."""
    return page_with(DOCUMENT, REPORT, "report", report)
