"""The sampling strategies side by side: which tokens stay, how likely each is, and what twelve draws give.

    uv run python main.py demo-sampling                 on a small distribution, written out below
    uv run python main.py demo-sampling --with-model --prompt "Once upon a time"

With a model, the distribution is what the model expects after the prompt, and every preset of `main.py generate`
writes a short continuation. Whatever is drawn is drawn with the same seed, so that only the settings differ.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from cli import console, open_model, parse, run
from distribution import bar, entropy_bits, token_name
from phrases import describe
from transformer.checkpoint import LoadedModel
from transformer.config import SAMPLING_PRESETS, ConfigError, SamplingConfig, seed_problems
from transformer.generation import stream_tokens, window_start
from transformer.sampling import draw, logits_to_probs

PROMPT = "The cat sat on the"
NEXT_TOKENS = {
    "mat": 0.32, "floor": 0.18, "sofa": 0.13, "bed": 0.10, "chair": 0.08, "table": 0.06,
    "roof": 0.05, "fence": 0.03, "piano": 0.02, "moon": 0.015, "throne": 0.01, "algebra": 0.005,
}  # fmt: skip
WHEN = {
    "greedy": "the same answer every time, as in tests; long texts fall into loops.",
    "multinomial": "shows all that the model expects; in a long text some unlikely token derails it.",
    "top_k": "a simple limit, but the same k is too many where the model is sure and too few where it is not.",
    "top_p": "the usual choice for prose: few tokens where the model is sure, many where it is not.",
    "top_k_top_p": "top_p within the k likeliest tokens: for high temperatures, where top_p alone lets many in.",
}
ROWS, DRAWS = 12, 12


@dataclass(frozen=True)
class SamplingComparisonOptions:
    """The sampling strategies side by side, on a small fixed distribution or on a trained model's."""

    temperatures: tuple[float, ...] = (0.7, 1.0, 1.5)
    """One table for each."""
    top_k: int = 6
    """Tokens that top_k and top_k_top_p keep."""
    top_p: float = 0.9
    """Share of the probability that top_p and top_k_top_p keep."""
    seed: int = 1
    """Fixes the draws."""
    with_model: bool = False
    """Shows a trained model's distribution, and what each preset writes."""
    prompt: str = PROMPT
    """With a model: the text to continue; "" starts a new text."""
    checkpoint: Path | None = None
    """With a model: which checkpoint to use; None: the latest."""
    max_new_tokens: int = 40
    """With a model: tokens in each continuation."""
    device: str = "auto"
    """With a model: auto, cpu, cuda or mps."""

    def strategies(self, temperature: float) -> list[SamplingConfig]:
        """Returns every strategy with these settings. Raises ConfigError where they are impossible."""
        shared = {"temperature": temperature, "top_k": self.top_k, "top_p": self.top_p}
        return [SamplingConfig.from_dict({"strategy": strategy, **shared}) for strategy in WHEN]


def main(arguments: Sequence[str]) -> None:
    options = parse(SamplingComparisonOptions, arguments, "demo-sampling", check=check)
    out = console()
    if not options.with_model:
        out.print(f"What follows '{PROMPT} ...'? Twelve tokens, with probabilities made up for this demonstration.\n")
        compare(out, torch.tensor(list(NEXT_TOKENS.values())).log(), list(NEXT_TOKENS).__getitem__, options)
    else:
        loaded = open_model(options.checkpoint, options.device)
        out.print(Text(f"{loaded.description}\nprompt {options.prompt!r}\n", style="dim"))
        tokens = loaded.tokenizer.encode(options.prompt) or [loaded.tokenizer.eot_id]
        start = window_start(len(tokens), loaded.model.config.max_seq_len)
        with torch.no_grad():
            prompt = torch.tensor([tokens[start:]], device=loaded.model.head.weight.device)  # (1, T)
            logits = loaded.model.next_logits(prompt)[0].cpu()  # (V,)
        compare(out, logits, lambda token: token_name(loaded.tokenizer, token), options)
        continue_with_presets(out, loaded, tokens, options)
    for strategy, advice in WHEN.items():
        out.print(f"{strategy}: {advice}")
    out.print("Temperature below 1 favours likely tokens, above 1 evens out; 0 is greedy.")


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
        options.strategies(temperature)


def compare(out: Console, logits: Tensor, name: Callable[[int], str], options: SamplingComparisonOptions) -> None:
    """Prints a table for every temperature, a column for every strategy: logits (V,) of tokens that `name` spells."""
    top = logits.topk(min(ROWS, len(logits))).indices  # (R,), the likeliest tokens
    others = torch.ones(len(logits), dtype=torch.bool).scatter(0, top, False)  # (V,)
    names = [name(int(token)) for token in top] + [f"{int(others.sum()):,} others"] * bool(others.any())
    for temperature in options.temperatures:
        table = Table(title=f"temperature {temperature:g}", title_justify="left", box=SIMPLE_HEAD, show_edge=False)
        table.padding, columns, drawn = (0, 1, 0, 0), [], Table.grid(padding=(0, 1))
        table.add_column("token", min_width=9)
        for sampling in options.strategies(temperature):
            limit = {"top_k": f" {options.top_k}", "top_p": f" {options.top_p:g}"}.get(sampling.strategy, "")
            table.add_column(sampling.strategy + limit, min_width=11, no_wrap=True)
            columns.append(probs := logits_to_probs(logits, sampling))  # (V,)
            tokens = draw(probs.expand(DRAWS, -1), torch.Generator().manual_seed(options.seed))  # (DRAWS,)
            drawn.add_row(sampling.strategy, Text(" ".join(name(int(token)) for token in tokens)))
        for row, spelt in enumerate(names):
            shares = [float(probs[top[row] if row < len(top) else others].sum()) for probs in columns]
            table.add_row(Text(spelt), *(f"{share:5.1%} {bar(share)}" if share else "" for share in shares))
        table.add_section()
        table.add_row("kept", *(f"{int((probs > 0).sum()):,}" for probs in columns))
        table.add_row("bits", *(f"{entropy_bits(probs):.2f}" for probs in columns))
        table.add_row("effective", *(f"{2 ** entropy_bits(probs):,.1f}" for probs in columns))
        out.print(table, f"\n{DRAWS} draws, all with seed {options.seed}:", drawn, "", sep="\n")
    out.print("kept: tokens that can be drawn; bits: entropy; effective: as uncertain as so many equal tokens.\n")


def continue_with_presets(
    out: Console, loaded: LoadedModel, tokens: list[int], opts: SamplingComparisonOptions
) -> None:
    """Prints what each preset writes after the prompt's tokens, every time with the same seed."""
    device, end = loaded.model.head.weight.device, loaded.tokenizer.eot_id
    for name, sampling in SAMPLING_PRESETS.items():
        prompt, generator = torch.tensor([tokens], device=device), torch.Generator(device).manual_seed(opts.seed)
        stream = stream_tokens(loaded.model, prompt, sampling, opts.max_new_tokens, [end], generator=generator)
        text = loaded.tokenizer.decode(token for step in stream if (token := int(step)) != end)
        out.print(f"{name} ({describe(sampling)})", style="bold")
        out.print(Text(f"{opts.prompt}{text}\n"))


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
