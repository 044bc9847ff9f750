r"""The trainer: the loop that turns a model with random weights into one that writes.

**The problem.** The parts exist: a model, a loss, batches, an optimizer, a schedule. Training calls them in the right
order some thousand times, reports how it goes, and can be stopped and resumed.

**One step**, without what makes it robust:

    N = count_targets(micro_batches)                                             dataset.py makes the micro-batches
    for tokens, targets in micro_batches:
        nats, _ = model.loss(tokens, targets)                                    loss.py
        (nats / N).backward()                                                    adds to .grad: training_utils.py
    clip_gradients(model.parameters(), grad_clip)
    set_learning_rate(optimizers, lr_scale(step, total_steps, settings))         scheduler.py
    for optimizer in optimizers:                                                 optimizer.py
        optimizer.step()
        optimizer.zero_grad()

train_step() does the same and adds three things: several processes, which sum counts and gradients; float16, which
needs the loss scaled up for backward; and steps without a finite gradient, which change no weight.

**A run**, fit(), repeats steps, evaluates the model on the validation text now and then, and saves a checkpoint after
each epoch. Everything that happens is emitted as an event (training/events.py) to *callbacks*: a file, a terminal
display, a plot. The trainer prints nothing, so the same loop serves a laptop, a test and a cluster.

**Reading the curves.** The loss starts near ln V and falls fast at first, while the model learns which tokens are
frequent, then slowly, while it learns which token follows which. Four patterns to know:

    train falls, validation falls        learning: continue
    train falls, validation rises        overfitting: it memorises this text. Stop, or more text, or dropout
    both flat and high                   underfitting: a larger model, a higher rate, more steps
    loss jumps up or becomes nan         the learning rate is too high; see grad_norm just before

The two losses are not quite comparable: the train loss is a mean over steps while the weights change, with dropout.
After each epoch training/diagnosis.py says which pattern it is, from the slopes of both curves and their errors.

By hand, a text that repeats four letters, and a model of one block:

>>> from transformer.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
>>> from transformer.data.open import text_data
>>> from transformer.dataset import TokenDocuments
>>> from transformer.text import load_tokenizer
>>> tokenizer, settings = load_tokenizer("byte"), DataConfig(seq_length=8)
>>> text = TokenDocuments([tokenizer.encode("abcd" * 50)], tokenizer.eot_id)
>>> trainer = Trainer(
...     TrainConfig(
...         ModelConfig(vocab_size=257, d_model=16, num_heads=2, num_layers=1, d_ff=32, max_seq_len=8, dropout=0.0),
...         settings, OptimizerConfig(learning_rate=0.01),
...         batch_size=4, accumulation_steps=1, max_steps=60, device="cpu"),
...     text_data(settings, tokenizer, text, text.num_tokens, iter(text)))
>>> round(trainer.evaluate().loss, 1)                          # ln 257 = 5.5: the uniform baseline
5.5
>>> for _ in range(60): trainer.train_step()
>>> trainer.evaluate().loss < 2
True

**Cost.** A step costs forward and backward of its tokens, about three forward passes, plus the optimizer's pass over
the weights. On a GPU, reading a number waits for all queued work, so numbers stay on the device until a report.

**Resuming** is exact: the state holds weights, optimizer state, random state and position in the text, so a stopped and
resumed run takes the same steps as an uninterrupted one, bit for bit on one machine and thread count. **Several
processes** (docs/several-machines.md) split the rows of each step; sums over all of them make them agree on everything.
**Is it working?** The first loss is near ln V and soon far below; `main.py plot` draws both curves.

Read before: dataset.py. Next: commands/train.py, the guide to a run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor, nn

from transformer.config import OptimizerConfig
from transformer.distributed.processes import sync_last, unshard
from transformer.optimizer import set_learning_rate
from transformer.perplexity import calculate_perplexity_from_loss
from transformer.scheduler import lr_scale
from transformer.training import validation
from transformer.training.batches import next_step
from transformer.training.device import to_device
from transformer.training.diagnosis import diagnose, no_longer_improves
from transformer.training.errors import TrainingError
from transformer.training.events import EpochMetrics, EvalMetrics, Progress, RunEnded, StepMetrics
from transformer.training.inside import is_early
from transformer.training.parallel import parallel_objective
from transformer.training.precision import skip_step_if
from transformer.training.resumable_run import ResumableRun
from transformer.training.step_metrics import run_started, step_metrics
from transformer.training_utils import accumulate_gradients, clip_gradients

MAX_SKIPPED_STEPS = 10
"""Number of consecutive steps without a finite gradient that ends a run."""


class Trainer(ResumableRun):
    """One training run: Trainer(config, data, callbacks, dist), perhaps resume(path), then fit().

    ResumableRun builds the model and its optimizers, and saves and restores everything. Here is the loop over it.
    """

    early_stopped = False  # the validation loss stopped improving
    stopping = False  # stop() was called, on this or another process
    _stop_requested = _save_due = False
    # Attributes, so that exercises/ can put a reader's versions in their place.
    accumulate_gradients: Callable[..., tuple[Tensor, Tensor]] = staticmethod(accumulate_gradients)
    lr_scale: Callable[[int, int, OptimizerConfig], float] = staticmethod(lr_scale)

    def fit(self) -> None:
        """Trains to the last step, or until stop(); emits events and saves checkpoints.

        Raises TrainingError after too many steps without a finite gradient; the state is saved first.
        """
        self.emit(run_started(self))
        already_finished = self.step >= self.total_steps and not self.so_far.evaluation_pending
        if self.so_far.evaluation_pending:  # the resumed state was saved just before this evaluation
            self.validate()
        elif self.step == 0:
            self.measure_inside()
        self.sync_control_flags()
        while self.step < self.total_steps and not self.stopping and not self.early_stopped:
            self.train_step()
            self.so_far.evaluation_pending = self.should_evaluate
            if self.should_evaluate or self.step % self.config.log_every == 0:
                self.emit(self.report())
            if is_early(self.step) and not self.should_evaluate:
                self.measure_inside()
            if self.should_evaluate:
                self.save_state()  # first, so that a crash in the evaluation loses nothing
                self.validate()
            elif self.should_save:
                self.save_state()
            self.sync_control_flags()
        if not already_finished:
            self.save_state()
        seconds = self.so_far.metric_sums.clock.total_seconds
        self.emit(RunEnded(self.step, self.tokens, seconds, self.stopping, self.early_stopped))

    def train_step(self) -> None:
        """Takes one optimizer step. A step without a finite gradient only advances the position in the text."""
        objective, parameters = self._parallel, list(self.model.parameters())
        self.so_far.metric_sums.clock.start()
        micro_batches, token_count, position = next_step(self.batches, self.config.accumulation_steps, self.dist)
        # Of several processes, backward() leaves the mean gradient; world_size times that is the sum over all tokens.
        # float16 needs its loss, and so its gradients, multiplied by loss_scale, until unscale().
        divisor = max(1, token_count) / self.dist.world_size / self.precision.loss_scale
        with self.precision.tf32():
            with self.precision.autocast():
                nats, counted = self.accumulate_gradients(objective, self._on_device(micro_batches), divisor)
            nats, counted = self.dist.sum_all(nats, counted)
            self.precision.unscale(parameters)
            grad_norm = unshard(clip_gradients(parameters, self.config.optimizer.grad_clip))
            bad = ~(grad_norm.isfinite() & nats.isfinite())  # stays on the device: reading it would wait
            skip_step_if(bad, self.optimizers)
            self.precision.adapt(bad)
            set_learning_rate(self.optimizers, self.lr_scale(self.step, self.total_steps, self.config.optimizer))
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)  # frees the gradients; the next backward() makes new ones
        self.so_far.metric_sums.add(nats, counted, grad_norm, bad, token_count)
        self.so_far.tokens += token_count
        self.so_far.data = position
        self.so_far.step += 1  # last: now the state is whole again

    def report(self) -> StepMetrics:
        """Returns the metrics of the steps since the last report. Raises TrainingError after too many skipped ones."""
        totals = self.so_far.metric_sums.take()  # waits for the device
        self.so_far.add_report(totals)
        if totals.skipped_in_a_row >= MAX_SKIPPED_STEPS:
            self.save_state()
            raise TrainingError(
                f"{totals.skipped_in_a_row} steps in a row, up to step {self.step}, had no finite gradient and changed "
                f"nothing. {self.advice_after_divergence()}"
            )
        return step_metrics(self, totals)

    def validate(self) -> None:
        """Evaluates and samples; ends the epoch if it is complete. If stop() cancels it, it stays pending."""
        score = self._evaluate(lambda: self._stop_requested and self.dist.world_size == 1)
        if score is None:
            return
        self.so_far.validation_points.append((self.step, score.loss, score.loss_error))
        self.emit(score)
        self.measure_inside()
        if self.config.sample_tokens and math.isfinite(score.loss):  # else there are no probabilities to sample from
            self.sample()
        patience = self.config.patience
        self.early_stopped = patience > 0 and no_longer_improves(self.so_far.validation_points, patience)
        if self.epoch_ends or self.early_stopped:
            self.finish_epoch(score)
        self.so_far.evaluation_pending = False

    def evaluate(self) -> EvalMetrics:
        """Returns the model's score on the validation text; changes nothing about training."""
        score = self._evaluate(lambda: False)
        assert score is not None
        return score

    def sample(self) -> None:
        """Emits a short text written by the model, always with the same seed."""
        self.emit(Progress(self.step, "sampling"))
        with self.dist.unsharded(self.model) as model:  # of several processes, rank 0 writes
            if self.dist.is_main:
                self.emit(validation.sample(model, self.data.tokenizer, self.config, self.step))

    def finish_epoch(self, score: EvalMetrics) -> None:
        """Saves the epoch's checkpoint and emits the epoch's losses with a diagnosis of both curves."""
        train_loss = self.so_far.end_epoch()
        rate = self.lr_scale(max(0, self.step - 1), self.total_steps, self.config.optimizer)
        found = diagnose(self.so_far.train_points, self.so_far.validation_points, self.step / self.total_steps, rate)
        path = self.save(score, {"train_loss": train_loss, "verdict": found.kind, "reason": found.reason})
        losses = (train_loss, calculate_perplexity_from_loss(train_loss), score.loss, score.perplexity)
        self.emit(EpochMetrics(self.epoch, self.step, *losses, str(path), found.kind, found.reason))

    def stop(self) -> None:
        """Asks fit() to end after the current step, on all processes. A signal handler may call it."""
        self._stop_requested = True

    def sync_control_flags(self) -> None:
        """Makes all processes agree whether to stop and whether a state is due by the clock."""
        due = self.dist.is_main and time.monotonic() - self.saved_at > 60 * self.config.save_every_minutes
        requested, due = self.dist.sum(torch.tensor([self._stop_requested, due], dtype=torch.int64)).tolist()
        self.stopping, self._save_due = bool(requested), bool(due)

    @property
    def should_evaluate(self) -> bool:
        """Whether an evaluation follows the last step."""
        return self.epoch_ends or self.step % self.config.eval_every == 0

    @property
    def should_save(self) -> bool:
        """Whether a state is due, by the clock or by the number of steps."""
        every = self.config.save_every_steps
        return self._save_due or (every > 0 and self.step % every == 0)

    @property
    def epoch_ends(self) -> bool:
        """Whether the last step ended an epoch or the run."""
        return self.step % self.steps_per_epoch == 0 or self.step == self.total_steps

    def _evaluate(self, is_cancelled: Callable[[], bool]) -> EvalMetrics | None:
        self.so_far.metric_sums.pause()  # evaluation is not training time
        return validation.evaluate(
            self.model, self.data, self.dist, self.precision, step=self.step, epoch=self.epoch,
            end_of_text=self.objective.end_of_text, is_cancelled=is_cancelled,
            progress=lambda rows, total: self.emit(Progress(self.step, "evaluating", rows, total)),
        )  # fmt: skip

    def _on_device(self, micro_batches: list[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        for number, (tokens, targets) in enumerate(sync_last(self._parallel, micro_batches)):
            self.emit(Progress(self.step, "training", number, len(micro_batches)))
            yield to_device(tokens, self.device), to_device(targets, self.device)  # (B, T) int64 each

    @cached_property
    def _parallel(self) -> nn.Module:
        """The objective, compiled and wrapped for several processes before the first step."""
        if self.config.compile:
            self.emit(Progress(self.step, "compiling"))
        return parallel_objective(self.objective, self.config, self.dist, self.precision)
