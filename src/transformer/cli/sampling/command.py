"""The demo-sampling command; commands/sampling_comparison.py documents it."""

from __future__ import annotations

import json
import shlex

from rich.console import Console
from rich.text import Text

from transformer.cli.console import console, writing_files
from transformer.cli.formatting import describe
from transformer.cli.models import open_model
from transformer.cli.options import program
from transformer.cli.sampling.distribution import fixed_distribution, model_distribution
from transformer.cli.sampling.options import PROMPT, SamplingComparisonOptions
from transformer.cli.sampling.table import DRAWS, WHEN, columns_of, draws_of, results_of, table_of
from transformer.cli.sampling_settings import top_k_notice
from transformer.config import SAMPLING_PRESETS
from transformer.inference.text_stream import generate_text
from transformer.reporting.figures import save_figure
from transformer.reporting.sampling_plots import draw_stages
from transformer.reporting.sampling_stages import stages
from transformer.training.checkpoint import LoadedModel
from transformer.training.files import write_text


def main(options: SamplingComparisonOptions) -> None:
    out, loaded = console(), None
    if options.with_model:
        loaded = open_model(options.checkpoint, options.device)
        about = f"{loaded.description}\nprompt {options.prompt!r}"
        out.print(Text(f"{about}\n", style="dim"))
        logits, text, name = model_distribution(loaded, options.prompt)
    else:
        about = f"What follows {PROMPT!r}? Twelve tokens with invented probabilities."
        out.print(f"{about}\n")
        logits, text, name = fixed_distribution()
    if limit := top_k_notice(options.all_at_once(1.0), len(logits)):
        out.print(f"{limit}\n")
    compared = {heat: columns_of(logits, text, options.strategies(heat), options.seed) for heat in options.temperatures}
    command = shlex.join([program(), "demo-sampling", *options.arguments])
    results = [{"temperature": heat, "columns": results_of(compared[heat], logits, name)} for heat in compared]
    contents = {"command": command, "about": about, "prompt": options.prompt, "seed": options.seed, "results": results}
    rows = [stages(logits, options.all_at_once(heat), text) for heat in compared]
    written = [options.out / file for file in ("stages.png", "stages.svg", "results.json")]
    for heat, columns in compared.items():
        out.print(table_of(columns, logits, name, f"temperature {heat:g}"))
        out.print(f"\n{DRAWS} samples, all with seed {options.seed}:", draws_of(columns, name), "", sep="\n")
    out.print("kept: tokens that can be sampled; bits: entropy; effective: 2 ** entropy, in equally likely tokens.\n")
    if loaded:
        continue_with_presets(out, loaded, options)
    for way, advice in WHEN.items():
        out.print(f"{way}: {advice}")
    out.print("A temperature below 1 favours likely tokens, above 1 it flattens the distribution; 0 is greedy.")
    with writing_files():
        save_figure(draw_stages(rows, name, f"What follows {options.prompt!r}?"), *written[:2])
        write_text(written[2], json.dumps(contents, indent=2) + "\n")
    out.print(f"written: {', '.join(map(str, written))}")


def continue_with_presets(out: Console, loaded: LoadedModel, opts: SamplingComparisonOptions) -> None:
    """Prints a continuation of the prompt for each preset, all with the same seed."""
    for name, sampling in SAMPLING_PRESETS.items():
        text = generate_text(loaded.model, loaded.tokenizer, opts.prompt, sampling, opts.max_new_tokens, opts.seed)
        out.print(f"{name} ({describe(sampling)})", style="bold")
        out.print(Text(f"{opts.prompt}{text}\n"))
