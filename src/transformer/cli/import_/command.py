"""The import command; commands/import_model.py documents it."""

from __future__ import annotations

import shlex
from pathlib import Path

from transformer.cli.console import console, printable
from transformer.cli.download_progress import notifier
from transformer.cli.import_.options import ImportOptions
from transformer.cli.options import command_line
from transformer.interop.importing import check_free, import_checkpoint
from transformer.interop.sources import locate, opened
from transformer.planning.cost import readable
from transformer.text.chat_template import has_template
from transformer.training import checkpoint


def main(options: ImportOptions) -> None:
    assert options.source is not None
    out = console()
    notify = notifier(out, lambda message: None)
    location = locate(options.source, options.revision, notify)
    folder = options.out or Path(f"checkpoints_{location.name}")
    check_free(folder)  # before anything is fetched
    # At a terminal, the hub library shows the progress of downloads.
    source = opened(location, notify, options.max_seq_len)
    at = f" at commit {location.revision[:12]}" if location.revision else ""
    licence = source.provenance.get("licence", "not named by the model: ask its authors")
    out.print(printable(f"{location.source}{at}, {readable(source.nbytes)}, licence {licence}"), soft_wrap=True)
    with out.status("importing the weights"):
        path = import_checkpoint(source, folder, options.dtype)
    weights = checkpoint.peek(path)["model"]
    count = sum({weight.data_ptr(): weight.numel() for weight in weights.values()}.values())  # tied ones once
    (dtype,) = {str(weight.dtype).removeprefix("torch.") for weight in weights.values()}
    out.print(f"{path}: written, {count:,} parameters in {dtype}, {readable(path.stat().st_size)}", soft_wrap=True)
    what, flags = ("talk to", "--chat") if has_template(source.tokenizer) else ("write with", '--prompt "..."')
    out.print(f"to {what} it: {command_line()} generate --checkpoint {shlex.quote(str(path))} {flags}", soft_wrap=True)
