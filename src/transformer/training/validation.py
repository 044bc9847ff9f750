"""What a run does when it looks at how it goes: it measures the model on the validation text, and lets it write."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple
from typing import TYPE_CHECKING

import torch

from transformer.config import IGNORE, SAMPLING_PRESETS
from transformer.evaluation.statistics import LossVariance
from transformer.inference.text_stream import generate_text
from transformer.model import DecoderOnlyTransformer
from transformer.perplexity import Evaluation, evaluate_perplexity
from transformer.training.events import EvalMetrics, Sample

if TYPE_CHECKING:
    from transformer.trainer import Trainer


class LookGivenUpError(Exception):
    """A look is given up, since the run shall stop; a resumed run takes it again."""


def measured(trainer: Trainer, progress: Callable[[int, int], object]) -> EvalMetrics:
    """Returns the score of all processes' shares of the validation text; `progress` gets rows done and all rows."""
    started = time.perf_counter()
    dist, variance = trainer.dist, LossVariance()
    inputs, targets = (
        dist.share(rows, padding) for rows, padding in zip(trainer.data.validation, (0, IGNORE), strict=True)
    )

    def on_batch(rows: int, nats: float, tokens: int) -> None:
        variance.add(nats, tokens)
        progress(rows, len(inputs))

    with trainer.precision.tf32(), trainer.precision.autocast():
        own = evaluate_perplexity(
            trainer.model, inputs, targets, end_of_text=trainer.objective.end_of_text, on_batch=on_batch,
        )  # fmt: skip
    sums = torch.tensor([own.nats, own.tokens, *astuple(variance)], dtype=torch.float64)
    nats, tokens, *sums_of_squares = dist.sum(sums).tolist()
    score = Evaluation(nats, int(tokens), trainer.data.validation_bytes)
    seconds = time.perf_counter() - started
    return EvalMetrics(
        trainer.step, trainer.epoch, score.loss, score.perplexity, score.bits_per_byte, score.tokens, seconds,
        LossVariance(*sums_of_squares).loss_error(score),
    )  # fmt: skip


def written(trainer: Trainer, model: DecoderOnlyTransformer) -> Sample:
    """Returns what the model, which is the trainer's and whole, writes after the prompt that the config names."""
    config = trainer.config
    text = generate_text(
        model, trainer.data.tokenizer, config.sample_prompt, SAMPLING_PRESETS["balanced"], config.sample_tokens,
        seed=config.seed,
    )  # fmt: skip
    return Sample(trainer.step, config.sample_prompt, text)
