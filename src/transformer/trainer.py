r"""The trainer: the loop that turns a model with random weights into one that writes.

**The problem.** All parts are there: a model, a loss, batches, an optimizer, a schedule. Training is putting them in
the right order some thousand times, noticing how it goes, and being able to stop and go on.

**One step**, train_step():

    1. take accumulation_steps micro-batches          dataset.py
    2. count their targets, N                         so that every token weighs the same
    3. forward, backward, for each of them            .grad collects d(nats / N): training_utils.py, loss.py
    4. clip the gradient, set the rate, step          optimizer.py, scheduler.py
    5. forget the gradient

**A run**, fit(): steps; now and then a look at the validation text; after each epoch a checkpoint. What a look finds is
told to *observers* as events (runtime/metrics.py): a file, a terminal, a plot. The trainer itself prints nothing and
knows nothing of displays, so the same loop serves a laptop, a test and a cluster.

**Reading the numbers.** The loss starts near ln V and falls fast at first, while the model learns which tokens are
frequent, then slowly, while it learns what follows what. Four pictures to know:

    train falls, validation falls        learning: go on
    train falls, validation rises        overfitting: it learns this text by heart; stop, or more text, or dropout
    both flat and high                   underfitting: a larger model, a higher rate, more steps
    loss jumps up or becomes nan         too high a rate; see grad_norm just before

The two are not quite comparable: train loss is measured while the weights still move, and with dropout. After each
epoch verdict.py says which picture it is, by the slopes of both curves and how sure they are.

By hand, a text that repeats four letters, and a model of one block:

>>> from transformer.config import DataConfig, ModelConfig, OptimizerConfig
>>> from transformer.data.open import text_data
>>> from transformer.dataset import TokenDocuments
>>> from transformer.text import load_tokenizer
>>> tokenizer, settings = load_tokenizer("byte"), DataConfig(seq_length=8)
>>> text = TokenDocuments([tokenizer.encode("abcd" * 50)], tokenizer.eot_id)
>>> trainer = Trainer(
...     TrainConfig(ModelConfig(257, 16, 2, 1, 32, 8, dropout=0.0), settings, OptimizerConfig(learning_rate=0.01),
...                 batch_size=4, accumulation_steps=1, max_steps=60, device="cpu"),
...     text_data(settings, tokenizer, text, text.num_tokens, iter(text)))
>>> round(trainer.evaluate().loss, 1)                          # ln 257 = 5.5: knows nothing
5.5
>>> for _ in range(60): trainer.train_step()
>>> trainer.evaluate().loss < 2
True

**Going on.** A state to resume from holds the weights, the optimizer's averages, the random state and the position in
the data. With all four, the run that was stopped and resumed takes the same steps as one that never stopped, bit for
bit on one kind of machine with one number of threads; a test compares them.

**Several processes** (torchrun) split each step's rows and take the same step: gradients, losses and token counts are
sums over all of them, so they agree on everything, a skipped step and the moment to stop included. Rank 0 tells and
saves. With `shard` each keeps only its part of the model. docs/several-machines.md says how to start them, and when
which pays.

**Cost.** A step costs what forward and backward of its tokens cost, three forward passes' work (loss.py says why the
last layer dominates small models), and the optimizer's pass over the weights. Numbers are fetched from the device only
when they are reported: on a GPU each fetch waits for all work in flight.
**Chosen.** A class of small methods rather than callbacks in a framework: fit() can be read aloud. Not chosen: to
stop by itself as soon as validation rises; --patience does so where it has surely stopped to fall, and only if asked.
**Is it working?** `main.py plot` draws the curve. The first loss is near ln V; soon it is far below.

Read before: training_utils.py, dataset.py. Next: commands/train.py, the guide to a run.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transformer.config import TrainConfig
from transformer.data.contracts import DataState, TextData
from transformer.dataset import PackedBatches
from transformer.distributed import sharded_checkpoint as sharded_state
from transformer.distributed.processes import Dist
from transformer.kernels import accelerate
from transformer.kernels.activation_checkpointing import checkpoint_activations
from transformer.model import DecoderOnlyTransformer
from transformer.optimizer import build_optimizers, set_learning_rate, skip_step_if
from transformer.perplexity import calculate_perplexity_from_loss
from transformer.planning.cost import flops
from transformer.planning.hardware import device_peak, utilisation
from transformer.scheduler import lr_scale
from transformer.training import checkpoint
from transformer.training.device import peak_memory_bytes, pick_device
from transformer.training.diagnosis import TrainPoint, ValidationPoint, Verdict, no_longer_improves, verdict
from transformer.training.events import (
    Callback,
    EpochMetrics,
    EvalMetrics,
    Event,
    Progress,
    RunEnded,
    RunStarted,
    StepMetrics,
)
from transformer.training.metric_sums import StepSums
from transformer.training.precision import Precision
from transformer.training.state import begin_with, restore, run_state
from transformer.training.validation import LookGivenUpError, measured, written
from transformer.training_utils import Objective, accumulate_gradients, clip_gradients, count_targets

MOST_BAD_STEPS = 10
"""So many steps in a row whose gradient is not finite end a run."""


class TrainingError(ValueError):
    """A run that cannot go on as it is; the message says what to change."""


class OtherProcessError(ValueError):
    """Another process of the run cannot go on, and says why; all stand between the same two steps."""


class Trainer:
    """One training run. Build it, maybe resume(), then fit()."""

    def __init__(
        self, config: TrainConfig, data: TextData, observers: Sequence[Callback] = (), dist: Dist | None = None
    ) -> None:
        """Raises ConfigError for impossible settings, ValueError where the device or other processes are missing."""
        self.config = config.check()
        self.data = data
        self.observers = observers
        self.dist = dist or Dist()
        self.device = self.dist.own(pick_device(config.device))
        self.precision = Precision(self.device, config.precision, config.shard)
        torch.manual_seed(config.seed)
        model = DecoderOnlyTransformer(config.model)
        accelerate(model, config.kernels)
        if config.activation_checkpointing:
            checkpoint_activations(model)
        self.model = self.dist.place(model, self.device, model.layers if config.shard else None)
        self.objective = Objective(self.model, data.tokenizer.eot_id if config.data.mask_documents else None)
        self.optimizers = build_optimizers(self.model, config.optimizer)
        self.steps_per_epoch = max(1, data.tokens_per_epoch // (config.tokens_per_step * self.dist.world_size))
        self.total_steps = min(config.epochs * self.steps_per_epoch, config.max_steps or config.epochs * 10**12)
        self.step = 0
        self.tokens = 0
        self.epoch_nats, self.epoch_tokens = 0.0, 0
        self.looks_next = False
        self.train_points: list[TrainPoint] = []
        self.validation_points: list[ValidationPoint] = []
        self.epochs_saved: list[tuple[int, float]] = []
        """The epochs whose checkpoints this run has left in its folder, in order, each with its validation loss."""
        self.init_from: dict[str, Any] | None = None
        """Which checkpoint the first weights come from, its step and tokens; None: they were drawn."""
        self.early_stopped = False
        """Whether validation has surely stopped to improve, for as long as `patience` says."""
        self._asked_to_stop = self.stopping = False
        self._save_is_due = False
        self.data_state = DataState()
        self.batches = self.open_batches()
        self.sums = StepSums()
        self._saved_at = time.monotonic()
        self.seed_own_dropout()

    def fit(self) -> None:
        """Trains to the end of the last epoch, or until stop(); tells observers what happens, leaves checkpoints.

        Raises TrainingError where step after step has no finite gradient; the state is saved then.
        """
        self._tell_start()
        is_over = self.step >= self.total_steps and not self.looks_next
        if self.looks_next:  # the state was saved before this look
            self.look()
        while not self._all_stop() and self.step < self.total_steps and not self.early_stopped:
            self.train_step()
            self.looks_next = self._epoch_ends() or self.step % self.config.eval_every == 0
            if self.looks_next or self.step % self.config.log_every == 0:
                self.tell(self.report())
            if self.looks_next:
                self.save_state()  # before anything else can go wrong
                self.look()
            elif self._save_is_due or self._steps_are_due():
                self.save_state()
        if not is_over:
            self.save_state()
        self.tell(RunEnded(self.step, self.tokens, self.sums.total_seconds(), self.stopping, self.early_stopped))

    def stop(self) -> None:
        """Asks fit() to end after the step that it is at, on all processes. May be called by a signal's handler."""
        self._asked_to_stop = True

    def _all_stop(self) -> bool:
        """Whether any process was asked to stop; also settles for all of them whether a state is due."""
        due = self.dist.is_main and time.monotonic() - self._saved_at > 60 * self.config.save_every_minutes
        asked, due = self.dist.sum(torch.tensor([self._asked_to_stop, due], dtype=torch.int64)).tolist()
        self.stopping, self._save_is_due = bool(asked), bool(due)
        return self.stopping

    def _steps_are_due(self) -> bool:
        every = self.config.save_every_steps
        return every > 0 and self.step % every == 0

    def look(self) -> None:
        """Measures the model on the validation text; at an epoch's end leaves its checkpoint and tells how it went."""
        try:
            score = self.evaluate()
        except LookGivenUpError:
            return
        self.validation_points.append((self.step, score.loss, score.loss_error))
        self.tell(score)
        if self.config.sample_tokens and math.isfinite(score.loss):  # else there are no probabilities to draw from
            self.sample()
        patience = self.config.patience
        self.early_stopped = patience > 0 and no_longer_improves(self.validation_points, patience)
        if self._epoch_ends() or self.early_stopped:
            self.finish_epoch(score)
        self.looks_next = False

    def train_step(self) -> None:
        """Takes one optimizer step; its numbers are kept on the device until report() asks for them.

        A step whose gradient is not finite changes nothing but the position in the text.
        """
        started = time.perf_counter()
        objective = self._parallel
        micro_batches, token_count = self._draw()
        on_device = self._on_device(micro_batches)
        with self.precision.tf32():
            with self.precision.autocast():
                scale = 1.0 if self.precision.scale is None else self.precision.scale
                sums = accumulate_gradients(objective, on_device, token_count, self.dist.world_size, scale)
            nats, counted = self._total(*sums)
            self.precision.unscale(self.model.parameters())
            grad_norm = clip_gradients(self.model.parameters(), self.config.optimizer.grad_clip)
            bad = ~(grad_norm.isfinite() & nats.isfinite())
            skip_step_if(self.optimizers, bad)
            self.precision.adapt(bad)
            set_learning_rate(self.optimizers, lr_scale(self.step, self.total_steps, self.config.optimizer))
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += token_count
        self.sums.add(nats, counted, grad_norm, bad, token_count, time.perf_counter() - started)

    def _on_device(self, micro_batches: list[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        for number, (tokens, targets) in enumerate(micro_batches):
            self.tell(Progress(self.step, "training", number, len(micro_batches)))
            yield tokens.to(self.device), targets.to(self.device)

    def _draw(self) -> tuple[list[tuple[Tensor, Tensor]], int]:
        """Returns this process's micro-batches of the next step, and how many targets all processes have in it.

        Where the text fails on one process, all raise, with the position in the text as it was before.
        """
        drawn, failure = [], None
        try:
            drawn = [next(self.batches) for _ in range(self.config.accumulation_steps)]
        except Exception as error:
            if self.dist.world_size == 1:
                raise
            failure = error
        micro_batches = [(tokens, targets) for tokens, targets, _ in drawn]
        counts = torch.tensor([count_targets(micro_batches), failure is not None])
        token_count, failures = self.dist.sum(counts).tolist()
        if failure is not None:
            raise failure
        if failures:
            raise OtherProcessError("the text failed on another process, which says why")
        self.data_state = drawn[-1][2]  # not before all are there: if the source fails in between, none counts
        return micro_batches, token_count

    def _total(self, nats: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the sums over all processes."""
        if self.dist.world_size == 1:
            return nats, counted
        both = self.dist.sum(torch.stack([nats.double(), counted.double()]))
        return both[0], both[1]

    @cached_property
    def _parallel(self) -> nn.Module:
        """The objective, wrapped so that backward() brings the gradients of all processes together."""
        if self.config.compile:
            self.objective.compile(fullgraph=True, dynamic=False)
        parallel = self.dist.parallel(self.objective)
        if self.config.compile:
            self.tell(Progress(self.step, "compiling"))
            try:
                self._try(parallel)
            except Exception as error:
                first = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise TrainingError(f"torch.compile fails on this machine: {first}; leave out --compile") from error
        elif self.dist.world_size > 1:
            # The first pass settles in which order gradients travel, and so how sums are rounded. An empty one, before
            # the first step and the first after resuming, lets both runs round alike.
            self._try(parallel)
        return parallel

    def _try(self, objective: nn.Module) -> None:
        """Passes a micro-batch of nothing through, forward and backward, which leaves no trace."""
        gpus = [self.device] if self.device.type == "cuda" else []
        shape = (self.config.batch_size, self.config.data.seq_length)
        nothing = torch.zeros(shape, dtype=torch.int64, device=self.device)
        with torch.random.fork_rng(gpus), self.precision.tf32(), self.precision.autocast():
            objective(nothing, nothing)[0].backward()
        objective.zero_grad(set_to_none=True)

    def seed_own_dropout(self) -> None:
        """Lets every process but the first, which goes on from the initial weights, draw dropout of its own."""
        if not self.dist.is_main:
            torch.manual_seed(random.Random(f"{self.config.seed} {self.dist.rank} {self.step}").getrandbits(63))

    def report(self) -> StepMetrics:
        """Returns the metrics of the steps since the last report. Raises TrainingError after too many skipped ones."""
        seen = self.sums.take()
        self.epoch_nats += seen.nats
        self.epoch_tokens += seen.counted
        if seen.skipped_in_a_row >= MOST_BAD_STEPS:
            raise TrainingError(
                f"{seen.skipped_in_a_row} steps in a row, up to step {self.step}, had no finite gradient and changed "
                f"nothing: begin again with a lower learning rate, or resume from {self.save_state()}"
            )
        loss = seen.nats / seen.counted if seen.counted else math.nan  # nan: every step was skipped
        if seen.counted:
            self.train_points.append((self.step, loss, seen.counted))
        tokens_per_second = seen.tokens / seen.seconds if seen.seconds else 0.0
        return StepMetrics(
            step=self.step,
            epoch=self.epoch,
            loss=loss,
            perplexity=calculate_perplexity_from_loss(loss),
            learning_rate=self.optimizers[0].param_groups[0]["lr"],
            grad_norm=seen.grad_norm,
            tokens=self.tokens,
            tokens_per_second=tokens_per_second,
            seconds=self.sums.total_seconds(),
            skipped=seen.skipped,
            memory_bytes=peak_memory_bytes(self.device),
            utilisation=self._utilisation(tokens_per_second) or 0.0,
        )

    def _utilisation(self, tokens_per_second: float) -> float | None:
        """Returns the share of the devices' peak that reaches the model; None where the peak is not known."""
        work = sum(flops(self.config.model, self.config.data.seq_length).values())
        peak = device_peak(self.device, self.precision.dtype)
        return utilisation(tokens_per_second / self.dist.world_size, work, peak and peak[0])

    def evaluate(self) -> EvalMetrics:
        """Returns how the model does on the validation text; changes nothing about training."""
        return measured(self, self._looked_at)

    def _looked_at(self, rows: int, total: int) -> None:
        if self._asked_to_stop and self.dist.world_size == 1:  # of several processes all must measure
            raise LookGivenUpError
        self.tell(Progress(self.step, "evaluating", rows, total))

    def sample(self) -> None:
        """Lets the model write a little and tells it; the draws of chance are always the same, and its own."""
        self.tell(Progress(self.step, "sampling"))
        with self.dist.whole(self.model) as model:
            if self.dist.is_main:
                self.tell(written(self, model))

    def finish_epoch(self, score: EvalMetrics) -> None:
        """Leaves the epoch's checkpoint and tells how the epoch went."""
        train_loss = self.epoch_nats / max(1, self.epoch_tokens)
        self.epoch_nats, self.epoch_tokens = 0.0, 0
        judged = self.judge()
        path = self.save(score, {"train_loss": train_loss, "verdict": judged.kind, "reason": judged.reason})
        losses = (train_loss, calculate_perplexity_from_loss(train_loss), score.loss, score.perplexity)
        self.tell(EpochMetrics(self.epoch, self.step, *losses, str(path), *astuple(judged)))

    def judge(self) -> Verdict:
        """Returns how the run goes, by the recent part of both curves."""
        done = self.step / self.total_steps
        rate = lr_scale(max(0, self.step - 1), self.total_steps, self.config.optimizer)
        return verdict(self.train_points, self.validation_points, done, rate)

    def _epoch_ends(self) -> bool:
        return self.step % self.steps_per_epoch == 0 or self.step == self.total_steps

    @property
    def epoch(self) -> int:
        """The epoch of the last step, counted from 1."""
        return max(1, -(-self.step // self.steps_per_epoch))

    @property
    def directory(self) -> Path:
        """Where this run's files go."""
        return Path(self.config.checkpoint_dir)

    def tell(self, event: Event) -> None:
        """Passes an event to every observer."""
        for observer in self.observers:
            observer(event)

    def save(self, score: EvalMetrics, told: Mapping[str, float | str] | None = None) -> Path:
        """Writes the epoch's checkpoint, the weights, what they scored and `told` of the epoch; returns its path.

        With keep_last, earlier ones of this run are removed then.
        """
        encoding = self.data.tokenizer.short_name
        path = checkpoint.epoch_path(self.directory, self.epoch, encoding)
        metrics = {"validation_loss": score.loss, "bits_per_byte": score.bits_per_byte, **(told or {})}
        others = [(epoch, loss) for epoch, loss in self.epochs_saved if epoch != self.epoch]
        self.epochs_saved = [*others, (self.epoch, score.loss)]
        weights = self.dist.whole_weights(self.model)  # all processes have a part in it
        if self.dist.is_main:
            checkpoint.save(path, {**self._contents(), "model": weights, "metrics": metrics})
            checkpoint.remove_epochs(self.directory, encoding, self.epochs_saved, self.config.keep_last)
        return path

    def save_state(self) -> Path:
        """Writes all that resume() needs; the one before stays beside it. Returns its path."""
        path = checkpoint.state_path(self.directory, self.data.tokenizer.short_name)
        self.tell(Progress(self.step, "saving"))
        path = sharded_state.save(path, {**self._contents(), **run_state(self)}, self.dist)  # all have a part in it
        self._saved_at = time.monotonic()
        return path

    def resume(self, path: Path) -> None:
        """Goes on from what save_state() wrote. Raises CheckpointError where that cannot be read or does not fit."""
        self.restore(sharded_state.load(path), path)

    def restore(self, contents: dict[str, Any], path: Path) -> None:
        """Goes on from a state that is loaded already; `path` is only named in errors, which are resume()'s."""
        restore(self, contents, path)
        self.batches = self.open_batches()

    def begin_with(self, contents: dict[str, Any], path: Path) -> None:
        """Takes over the weights of a checkpoint, loaded already, for a new run; raises CheckpointError."""
        begin_with(self, contents, path)

    def _contents(self) -> dict[str, Any]:
        contents = checkpoint.model_contents(self.model, self.config, self.data.tokenizer)
        return {**contents, "step": self.step, "epoch": self.epoch, "tokens": self.tokens, "init_from": self.init_from}

    def open_batches(self) -> Iterator[tuple[Tensor, Tensor, DataState]]:
        settings = self.config.data
        rows_per_epoch = max(1, self.data.tokens_per_epoch // settings.seq_length)
        return iter(
            PackedBatches(
                self.data.train,
                settings.seq_length,
                self.config.batch_size,
                self.config.seed,
                self.data_state,
                window_rows=min(settings.shuffle_rows, rows_per_epoch),
                rank=self.dist.rank,
                world_size=self.dist.world_size,
            )
        )

    def _tell_start(self) -> None:
        self.tell(
            RunStarted(
                run=self.directory.name,
                step=self.step,
                total_steps=self.total_steps,
                steps_per_epoch=self.steps_per_epoch,
                tokens_per_step=self.config.tokens_per_step * self.dist.world_size,
                parameters=sum(self.model.parameter_counts().values()),
                device=str(self.device),
                evaluation_pending=self.looks_next,
            )
        )
