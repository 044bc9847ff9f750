"""Measurements inside the model while it trains (--watch-inside): when do its heads take up which habit?

At step 0, after 1, 2, 4, 8, ... steps and at every evaluation, the model reads the same few rows of repeated random
tokens. Measured are the habits of all heads (interpret/heads.py) and the losses of both halves (in_context.py there).
One more text gives a frame of the run's film: all attention weights on the beginning of the validation text, repeated
once. A checkpoint after each epoch would be too late: heads form within the first few hundred steps.

The training does not notice: the rows come from a generator of their own, and nothing else is random.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from transformer.config import IGNORE
from transformer.data.contracts import TextData
from transformer.interpret.heads import head_habits
from transformer.interpret.in_context import familiar_rows, in_context_loss
from transformer.interpret.report_values import pack
from transformer.model import DecoderOnlyTransformer
from transformer.training.events import AttentionFrame, InsideMetrics

ROWS = 8
LONGEST = 128
"""Most tokens in a row; a row is not longer than a training row."""
FILMED = 32
"""Most tokens of the film's text."""


@dataclass(frozen=True)
class InsideWatch:
    """The texts of the measurements: the same in every run with the same data and encoding."""

    data: TextData
    seq_length: int

    @cached_property
    def rows(self) -> Tensor:
        """Random tokens of the validation text, drawn by their frequency and repeated once, (ROWS, T) int64."""
        return familiar_rows(self._text, ROWS, min(LONGEST, self.seq_length) // 2)

    @cached_property
    def filmed(self) -> Tensor:
        """The beginning of the validation text, repeated once, (1, T) int64."""
        return self._text[: min(FILMED, self.seq_length) // 2].repeat(2)[None]

    @property
    def _text(self) -> Tensor:
        """The tokens of the validation text, (N,) int64, without end-of-text."""
        inputs, targets = self.data.validation
        tokens = inputs[targets != IGNORE]
        return tokens[tokens != self.data.tokenizer.eot_id]

    def measure(self, model: DecoderOnlyTransformer, step: int) -> Iterator[InsideMetrics | AttentionFrame]:
        """Yields the numbers and the frame of this step."""
        started = time.perf_counter()
        habits, losses = head_habits(model, self.rows), in_context_loss(model, self.rows)
        weights = torch.cat(model.attention_weights(self.filmed.to(model.device))).nan_to_num(0)  # (L, H, T, T)
        tokens = [self.data.tokenizer.decode([token]) for token in self.filmed[0].tolist()]
        frame = AttentionFrame(step, tokens, len(weights), weights.shape[1], pack(weights, bits=8))
        scores = {name: habit.score.mul(1e4).round().div(1e4).tolist() for name, habit in habits.items()}
        even = {name: round(habit.even, 4) for name, habit in habits.items()}
        yield InsideMetrics(step, scores, even, losses.first, losses.second, time.perf_counter() - started)
        yield frame


def is_early(step: int) -> bool:
    """Whether the step is 0 or a power of two: then the model is measured, whether it is evaluated or not."""
    return step & (step - 1) == 0
