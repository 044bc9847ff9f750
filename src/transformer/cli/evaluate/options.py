"""The options of the evaluate command; compare shares those for text and windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from transformer.cli.options import parse
from transformer.config import DataConfig, Kernels, Weights


@dataclass(frozen=True)
class MeasureOptions:
    """The text to evaluate on, and the windows."""

    dataset: str | None = None
    """Held-out text of this dataset: shakespeare, fineweb, hf:OWNER/NAME or a path. None: the model's own."""
    text_file: str | None = None
    """Evaluate on all of this text instead: txt, md, jsonl, parquet, a folder of these, or - for standard input."""
    text_column: str | None = None
    """The field or column with the text in jsonl and parquet files. None: as in training, or text."""
    max_tokens: int | None = None
    """Maximum number of tokens. None: all of --text-file; for a dataset, as many as evaluations during training use."""
    context: int | None = None
    """Tokens in a window, the maximum context of a prediction. None: the row length of training."""
    stride: int | None = None
    """Tokens between the starts of two windows: a smaller stride gives more context, slowly. None: half a window."""
    batch_size: int = 16
    """Windows in a batch."""

    def check(self) -> None:
        """Raises ValueError for options that no model can be evaluated with."""
        if self.dataset is not None and self.text_file is not None:
            raise ValueError("--dataset and --text-file each name a text: give one of them")
        for name in ("max_tokens", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")

    def data(self, trained_on: DataConfig) -> DataConfig:
        """Returns the dataset to evaluate on, for a model trained on `trained_on`."""
        text_column = self.text_column or trained_on.text_column
        if self.dataset is None or self.dataset == trained_on.dataset:
            return replace(trained_on, text_column=text_column)
        return DataConfig(
            self.dataset,
            trained_on.encoding,
            validation_fraction=trained_on.validation_fraction,
            validation_tokens=trained_on.validation_tokens,
            text_column=self.text_column or DataConfig.text_column,
            cache_shards=trained_on.cache_shards,
            cache_gb=trained_on.cache_gb,
        ).check()


@dataclass(frozen=True)
class EvaluateOptions:
    """Evaluate a checkpoint on held-out text, or on a text of your own: perplexity and bits per byte."""

    checkpoint: Path | None = None
    """The checkpoint to evaluate. None: the latest; FOLDER: the latest in it. "best": the lowest validation loss
    of all runs here; FOLDER/best: of those in FOLDER. hf:OWNER/NAME, a folder with config.json
    or a .gguf file: a model of another program, imported at its first use."""
    measure: MeasureOptions = field(default_factory=MeasureOptions)
    weights: Weights = "float32"
    """Evaluate the model with its weight matrices rounded to this format, as in `generate --weights`."""
    int8: bool = False
    """Same as --weights int8."""
    kernels: Kernels = "auto"
    """auto: faster equivalents of core functions, chosen by processor. plain: the code of the core files. A kind of
    processor: the choices for that kind."""
    json: bool = False
    """Print one JSON object with all digits, and nothing else, on standard output."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


def read_options(arguments: Sequence[str]) -> EvaluateOptions:
    return parse(EvaluateOptions(), arguments, "evaluate", lambda options: options.measure.check())
