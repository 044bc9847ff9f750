"""The demo-sampling command; commands/sampling_comparison.py documents it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from transformer.cli.console import console
from transformer.cli.formatting import describe
from transformer.cli.models import open_model
from transformer.cli.options import parse, program
from transformer.cli.sampling.distribution import PROMPT, fixed_distribution, model_distribution
from transformer.cli.sampling.table import DRAWS, WHEN, columns_of, draws_of, results_of, table_of
from transformer.cli.sampling_settings import top_k_notice
from transformer.config import SAMPLING_PRESETS, ConfigError, SamplingConfig, seed_problems
from transformer.inference.text_stream import generate_text
from transformer.reporting.figures import save_figure
from transformer.reporting.sampling_plots import draw_stages
from transformer.reporting.sampling_stages import stages
from transformer.training.checkpoint import LoadedModel


@dataclass(frozen=True)
class SamplingComparisonOptions:
    """Compare the sampling strategies on a small fixed distribution, or on a trained model's."""

    temperatures: tuple[float, ...] = (0.7, 1.0, 1.5)
    """One table, and one row of the picture, for each temperature."""
    top_k: int = 8
    """Number of tokens that top_k and top_k_top_p keep."""
    top_p: float = 0.9
    """Cumulative probability that top_p and top_k_top_p keep."""
    min_p: float = 0.2
    """Minimum probability of a token, relative to the most likely one, for the column "min_p"."""
    repetition_penalty: float = 1.3
    """Repetition penalty on the tokens of the prompt, for the column "penalty"."""
    seed: int = 1
    """Seed of all samples."""
    with_model: bool = False
    """Use a trained model's distribution, and show a continuation for each preset."""
    prompt: str = PROMPT
    """With a model: the text to continue; "" starts a new text."""
    checkpoint: Path | None = None
    """With a model: the checkpoint to use. None: the latest."""
    max_new_tokens: int = 40
    """With a model: tokens in each continuation."""
    out: Path = Path("runs/sampling_comparison")
    """Folder for stages.png, stages.svg and results.json."""
    device: str = "auto"
    """With a model: auto, cpu, cuda or mps."""

    def strategies(self, temperature: float) -> dict[str, SamplingConfig]:
        """Returns the settings of each column. Raises ConfigError if they are impossible."""
        shared = {"temperature": temperature, "top_k": self.top_k, "top_p": self.top_p}
        penalty = {"repetition_penalty": self.repetition_penalty}
        columns: dict[str, dict[str, object]] = {
            "greedy": {"strategy": "greedy"},
            "multinomial": {"strategy": "multinomial"},
            f"top_k\n{self.top_k}": {"strategy": "top_k"},
            f"top_p\n{self.top_p:g}": {"strategy": "top_p"},
            "top_k\ntop_p": {"strategy": "top_k_top_p"},
            f"min_p\n{self.min_p:g}": {"strategy": "multinomial", "min_p": self.min_p},
            f"penalty\n{self.repetition_penalty:g}": {"strategy": "multinomial", **penalty},
        }
        return {name: SamplingConfig.from_dict({**shared, **own}) for name, own in columns.items()}

    def all_at_once(self, temperature: float) -> SamplingConfig:
        """Returns the settings of the picture: every filter, one after another."""
        return SamplingConfig(
            "top_k_top_p", temperature, self.top_k, self.top_p, self.min_p, self.repetition_penalty
        ).check()


def main(arguments: Sequence[str]) -> None:
    options = parse(SamplingComparisonOptions, arguments, "demo-sampling", check=check)
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
    command = shlex.join([program(), "demo-sampling", *arguments])
    results = [{"temperature": heat, "columns": results_of(compared[heat], logits, name)} for heat in compared]
    contents = {"command": command, "about": about, "prompt": options.prompt, "seed": options.seed, "results": results}
    rows = [stages(logits, options.all_at_once(heat), text) for heat in compared]
    written = [options.out / file for file in ("stages.png", "stages.svg", "results.json")]
    save_figure(draw_stages(rows, name, f"What follows {options.prompt!r}?"), *written[:2])
    written[2].write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
    for heat, columns in compared.items():
        out.print(table_of(columns, logits, name, f"temperature {heat:g}"))
        out.print(f"\n{DRAWS} samples, all with seed {options.seed}:", draws_of(columns, name), "", sep="\n")
    out.print("kept: tokens that can be sampled; bits: entropy; effective: 2 ** entropy, in equally likely tokens.\n")
    if loaded:
        continue_with_presets(out, loaded, options)
    for way, advice in WHEN.items():
        out.print(f"{way}: {advice}")
    out.print("A temperature below 1 favours likely tokens, above 1 it flattens the distribution; 0 is greedy.")
    out.print(f"written: {', '.join(map(str, written))}")


def check(options: SamplingComparisonOptions) -> None:
    """Raises ConfigError, in one line, for options that are impossible or cannot be used together."""
    problems = seed_problems(options.seed)
    if not options.with_model and (options.prompt != PROMPT or options.checkpoint):
        problems.append("--prompt and --checkpoint are for a trained model: add --with-model")
    if not options.temperatures or options.max_new_tokens < 1:
        problems.append("at least one temperature and one new token are needed")
    if problems:
        raise ConfigError(problems)
    for temperature in options.temperatures:
        options.all_at_once(temperature)


def continue_with_presets(out: Console, loaded: LoadedModel, opts: SamplingComparisonOptions) -> None:
    """Prints a continuation of the prompt for each preset, all with the same seed."""
    for name, sampling in SAMPLING_PRESETS.items():
        text = generate_text(loaded.model, loaded.tokenizer, opts.prompt, sampling, opts.max_new_tokens, opts.seed)
        out.print(f"{name} ({describe(sampling)})", style="bold")
        out.print(Text(f"{opts.prompt}{text}\n"))
