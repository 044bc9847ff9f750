"""The inspect command; commands/inspect_checkpoint.py documents it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from transformer.cli.console import console
from transformer.cli.inspect.options import InspectOptions
from transformer.cli.inspect.tables import parts_table, settings_table
from transformer.cli.json_output import print_json
from transformer.cli.models import find_checkpoint
from transformer.cli.options import command_line
from transformer.config import TrainConfig
from transformer.planning.cost import readable
from transformer.reporting.config_flags import changed, train_flags
from transformer.training.checkpoint import CheckpointError
from transformer.training.checkpoint_report import Report, inspect
from transformer.training.machine import placed


def main(options: InspectOptions) -> None:
    report = inspect(find_checkpoint(options.checkpoint))
    if options.json:
        differing = list(changed(report.config, TrainConfig()))
        print_json({**report.to_dict(), "changed_settings": differing, "train_flags": train_flags(report.config)})
    else:
        show(report, console())
    if report.problems:
        raise CheckpointError(f"{report.path} is not valid: {'; '.join(report.problems)}")


def show(report: Report, out: Console) -> None:
    """Prints the report: the kind of file, its provenance, its parts and its settings."""
    out.print(str(report.path), style="bold")
    out.print(f"{report.kind}, {readable(report.bytes)}, format {report.format}")
    if not report.problems:
        out.print(f"valid: {report.entries} checksums match, the weights fit the settings, every number is finite")
    out.print()
    for name, what in about_rows(report).items():
        out.print(f"{name:<11} {what}")
    is_imported = "imported" in report.provenance
    for table in (parts_table(report), settings_table(report.config, only="model" if is_imported else None)):
        out.print()
        out.print(table)
    flags, what = train_flags(report.config), "To train with the same settings:"
    if is_imported:
        flags, what = ["--init-from", str(report.path), "--dataset", "notes.txt"], "To train from it on your own text:"
    out.print(f"\n{what}", style="dim")
    out.print(f"{command_line()} train {shlex.join(flags)}", soft_wrap=True)


def about_rows(report: Report) -> dict[str, str]:
    """Returns provenance, encoding and scores of the checkpoint, one row each."""
    encoding, found = report.encoding, report.provenance
    ids = "" if encoding.vocab_size is None else f", {encoding.vocab_size:,} ids, end of text {encoding.end_of_text}"
    epoch = "" if report.epoch is None else f"epoch {report.epoch}, "
    each = f" ({report.tokens / report.parameters:.2g} per parameter)" if report.parameters else ""
    version = [f"{name} {found[name]}" for name in ("subset", "split", "revision") if found.get(name)]
    rows = {
        "seen": f"{epoch}step {report.step:,}, {report.tokens:,} tokens{each}",
        **score_rows(report.metrics),
        "encoding": f"{encoding.name}{ids}; in the file: {encoding.carried}",
        "text": ", ".join([str(found["dataset"]), *version]),
    }
    if "imported" in found:
        rows = {**source_rows(found["imported"]), "encoding": rows["encoding"]}
    if "position" in found:
        rows["position"] = ", ".join(f"{name} {value:,}" for name, value in found["position"].items())
    if before := found["init_from"]:
        rows["started from"] = (
            f"{before['path']}: step {before['step']:,}, {before['tokens']:,} tokens, {before['dataset']}"
        )
        if imported := before.get("imported"):
            rows |= {"started from": before["path"], **source_rows(imported)}
    if machine := found.get("machine"):
        rows["trained"] = f"{placed(machine)} ({machine.get('processor', '?')})"
    made = f"PyTorch {found.get('torch', '?')}, Python {found.get('python', '?')}, seed {found['seed']}"
    rows["made with"] = made + (f", {found['processes']} processes" if found.get("processes", 1) > 1 else "")
    return {**rows, "written": time.strftime("%Y-%m-%d %H:%M", time.localtime(report.path.stat().st_mtime))}


def source_rows(imported: Mapping[str, str]) -> dict[str, str]:
    """Returns the source of an imported model: there, not here, it was trained."""
    commit = f", commit {imported['revision']}" if "revision" in imported else ""
    files = [file.rpartition("=") for file in imported.get("sha256", "").split()]
    return {
        "imported": f"from {imported.get('source', '?')}{commit}, {imported.get('imported_at', '?')}",
        "licence": imported.get("licence", "not named by the model: ask its authors"),
        "sha256": ", ".join(f"{name} {digest[:12]}" for name, _, digest in files),
    }


def score_rows(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Returns the scores stored in the checkpoint."""
    rows = {
        name: f"loss {metrics[f'{name}_loss']:.4f}, perplexity {metrics[f'{name}_perplexity']:.2f}"
        for name in ("train", "validation")
        if f"{name}_perplexity" in metrics
    }
    if "bits_per_byte" in metrics and "validation" in rows:
        rows["validation"] += f", {metrics['bits_per_byte']:.4f} bits per byte"
    if "lowest_at_step" in metrics and "validation" in rows:
        rows["validation"] += f"; lowest {metrics['lowest_validation_loss']:.4f} at step {metrics['lowest_at_step']:,}"
    if "verdict" in metrics:
        rows["verdict"] = f"{metrics['verdict']}: {metrics.get('reason', '')}"
    return rows
