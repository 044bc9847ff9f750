"""Evaluation during a run: the loss on the validation text, and a sample of what the model writes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple

import torch

from transformer.config import IGNORE, SAMPLING_PRESETS, TrainConfig
from transformer.data.contracts import TextData
from transformer.distributed.processes import Dist
from transformer.evaluation.statistics import LossVariance
from transformer.generation import eval_mode
from transformer.inference.text_stream import generate_text
from transformer.model import DecoderOnlyTransformer
from transformer.perplexity import Evaluation, evaluate_perplexity
from transformer.text import Tokenizer
from transformer.training.events import EvalMetrics, Sample
from transformer.training.precision import Precision

BATCH_ROWS = 16


def evaluate(
    model: DecoderOnlyTransformer,
    data: TextData,
    dist: Dist,
    precision: Precision,
    *,
    step: int,
    epoch: int,
    end_of_text: int | None,
    progress: Callable[[int, int], object],
    is_cancelled: Callable[[], bool],
) -> EvalMetrics | None:
    """Returns the model's score on the validation text, whose rows are split between the processes.

    On a CPU it is computed in float32, whatever the training is in, so that scores of different machines compare. Given
    the id of end-of-text, attention stays within documents. `progress` receives the rows done and all rows. None:
    `is_cancelled` returned True after a batch; it must do so on all processes or on none.
    """
    started = time.perf_counter()
    inputs, targets = (dist.own_rows(rows, padding) for rows, padding in zip(data.validation, (0, IGNORE), strict=True))
    nats, tokens, variance = 0.0, 0, LossVariance()
    with precision.tf32(), precision.evaluation():
        for begin in range(0, len(inputs), BATCH_ROWS):
            rows = slice(begin, begin + BATCH_ROWS)
            batch = evaluate_perplexity(model, inputs[rows], targets[rows], end_of_text=end_of_text)
            nats, tokens = nats + batch.nats, tokens + batch.tokens
            variance.add(batch.nats, batch.tokens)
            progress(min(len(inputs), begin + BATCH_ROWS), len(inputs))
            if is_cancelled():
                return None
    sums = torch.tensor([nats, tokens, *astuple(variance)], dtype=torch.float64)
    nats, tokens, *sums_of_squares = dist.sum(sums).tolist()
    score = Evaluation(nats, int(tokens), data.validation_bytes)
    return EvalMetrics(
        step=step,
        epoch=epoch,
        loss=score.loss,
        perplexity=score.perplexity,
        bits_per_byte=score.bits_per_byte,
        tokens=score.tokens,
        seconds=time.perf_counter() - started,
        loss_error=LossVariance(*sums_of_squares).loss_error(score),
    )


def sample(model: DecoderOnlyTransformer, tokenizer: Tokenizer, config: TrainConfig, step: int) -> Sample:
    """Returns the model's continuation of the configured prompt; it draws from its own generator, seeded alike."""
    settings, length = SAMPLING_PRESETS["balanced"], config.sample_tokens
    with eval_mode(model):  # here once, instead of before and after each token
        text = generate_text(model, tokenizer, config.sample_prompt, settings, length, seed=config.seed)
    return Sample(step, config.sample_prompt, text)
