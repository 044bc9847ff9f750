"""The model card of an export: a README.md that says what the model is, where it comes from and how to use it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformer.config import DataConfig
from transformer.reporting.config_flags import train_flags
from transformer.text.tokenizer import replace_lone_surrogates
from transformer.training.checkpoint import LoadedModel

FINEWEB = "HuggingFaceFW/fineweb-edu"
LICENCES = {
    "fineweb": "ODC-By 1.0",
    "shakespeare": "public domain",
    "repeats": "public domain",
    "refrains": "public domain",
}
"""The licences of the datasets that this project knows by name."""
USE = """\
A decoder-only transformer. It loads in `transformers`:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where this file is
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
tokens = tokenizer("Once", return_tensors="pt")
print(tokenizer.decode(model.generate(**tokens, max_new_tokens={new_tokens})[0]))
```"""


def provenance(loaded: LoadedModel) -> dict[str, str]:
    """Returns where a model comes from, as far as its checkpoint records it, one line each.

    Of a path only the last part is kept, so that a published card does not name folders of this machine.
    """
    contents, config = loaded.contents, loaded.config
    if imported := contents.get("imported"):
        return {"imported from": last_part(imported["source"])} | {
            name: value for name, value in imported.items() if name != "source"
        }
    scores = {
        "loss in nats per token": contents.get("metrics", {}).get("validation_loss"),
        "bits per byte": contents.get("metrics", {}).get("bits_per_byte"),
    }
    data = replace(config.data, dataset=dataset_name(config.data), cache_dir=None)
    run = replace(config, data=data, checkpoint_dir=Path(config.checkpoint_dir).name)
    run = replace(run, init_from=last_part(config.init_from) if config.init_from else None)
    before = contents.get("init_from") or {}
    origin = before.get("imported") or {}
    versions = contents.get("versions", {})
    found = {
        "dataset": " ".join(filter(None, [data.dataset, *([data.subset, data.revision] if data.is_on_hub else [])])),
        "licence of the dataset": LICENCES.get(data.dataset, ""),
        "training": f"{contents['step']:,} steps, {contents['tokens']:,} tokens",
        "validation": ", ".join(f"{value:.4f} {name}" for name, value in scores.items() if isinstance(value, float)),
        "started from": last_part(origin.get("source") or before.get("path", "")),
        "licence of that model": origin.get("licence", ""),
        "made with": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "command": f"python main.py train {shlex.join(train_flags(run))}",
    }
    return {name: value for name, value in found.items() if value}


def last_part(place: str) -> str:
    """Returns the last part of a path; a model on the hub, hf:OWNER/NAME, is kept."""
    return place if place.startswith("hf:") else Path(place).name


def dataset_name(data: DataConfig) -> str:
    """Returns the dataset as `--dataset` takes it; of a local one only the last part of the path."""
    return data.dataset if data.is_on_hub else Path(data.dataset).name


CONTEXT = ("n_positions", "max_seq_len", "max_position_embeddings")
"""Names of the length of the context in a config.json."""


def model_card(name: str, about: Mapping[str, str], settings: Mapping[str, Any], parameters: int) -> str:
    """Returns the text of the card; `about` as provenance() returns it, `settings` the config.json."""
    context = next(settings[key] for key in CONTEXT if key in settings)
    facts = {
        "architecture": settings["model_type"],
        "parameters": f"{parameters:,}",
        "context": f"{context:,} tokens",
        **about,
    }
    command = facts.pop("command", "")
    rows = [f"| {_cell(fact).replace('_', ' ')} | {_cell(value)} |" for fact, value in facts.items()]
    use = USE.format(new_tokens=min(50, context // 2))
    lines = [*_metadata(about), "", f"# {_cell(name)}", "", use, "", "| | |", "| --- | --- |", *rows]
    if command:
        lines += ["", "To train it again:", "", "```bash", command, "```"]
    return replace_lone_surrogates("\n".join(lines) + "\n")  # of file names that are not UTF-8


def _metadata(about: Mapping[str, str]) -> list[str]:
    """Returns the lines from which the hub makes labels and links; of a licence only a name that the hub can know."""
    found = ["library_name: transformers", "pipeline_tag: text-generation"]
    if re.fullmatch(r"[a-z0-9.-]+", licence := about.get("licence", "").lower()):
        found.append(f"license: {licence}")
    dataset = about.get("dataset", "").split(" ")[0].replace("fineweb", f"hf:{FINEWEB}")
    if re.fullmatch(r"hf:[\w.-]+/[\w.-]+", dataset):
        found += ["datasets:", f"- {dataset.removeprefix('hf:')}"]
    return ["---", *found, "---"]


def _cell(text: str) -> str:
    """Returns a text that is one cell of a table, whatever it contains."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
