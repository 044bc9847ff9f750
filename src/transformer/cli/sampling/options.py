"""The options of the demo-sampling command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformer.cli.options import HIDDEN, parse
from transformer.config import ConfigError, SamplingConfig, seed_problems

PROMPT = "The cat left the mat, then the sofa. Now it sits on the"


@dataclass(frozen=True)
class SamplingComparisonOptions:
    """Compare the sampling strategies on a small fixed distribution, or on a trained model's."""

    temperatures: tuple[float, ...] = (0.7, 1.0, 1.5)
    """One table, and one row of the picture, for each temperature."""
    top_k: int = 8
    """Number of tokens that top_k and top_k_top_p keep."""
    top_p: float = 0.9
    """Cumulative probability that top_p and top_k_top_p keep."""
    min_p: float = 0.4
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
    """With a model: the checkpoint to use, also hf:OWNER/NAME, a folder with config.json or a .gguf file. None: the
    latest."""
    max_new_tokens: int = 40
    """With a model: tokens in each continuation."""
    out: Path = Path("runs/sampling_comparison")
    """Folder for stages.png, stages.svg and results.json."""
    device: str = "auto"
    """With a model: auto, cpu, cuda or mps."""
    arguments: tuple[str, ...] = field(default=(), metadata=HIDDEN)
    """The words of the command line."""

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


def read_options(arguments: Sequence[str]) -> SamplingComparisonOptions:
    return parse(SamplingComparisonOptions(arguments=tuple(arguments)), arguments, "demo-sampling", check)


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
