"""The parts of a training run, and saving and restoring all of them: what the trainer's loop works on.

A state to resume from holds the weights, the optimizer state, the random state of every process, the position in the
text and the numbers counted so far (state.py). With all of them, a run that was stopped and resumed takes the same
steps as one that was not, bit for bit on one kind of machine with one number of threads.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from transformer.config import TrainConfig
from transformer.data.contracts import TextData
from transformer.distributed import sharded_checkpoint
from transformer.distributed.muon import DistributedMuon
from transformer.distributed.processes import Dist
from transformer.kernels import accelerate
from transformer.kernels.activation_checkpointing import checkpoint_activations
from transformer.model import DecoderOnlyTransformer
from transformer.optimizer import build_optimizers
from transformer.training import checkpoint
from transformer.training.batches import open_batches
from transformer.training.checkpoint import CheckpointError
from transformer.training.device import pick_device
from transformer.training.events import Callback, EvalMetrics, Event, Progress
from transformer.training.inside import InsideWatch
from transformer.training.machine import machine
from transformer.training.precision import Precision, chosen_dtype
from transformer.training.same_text import has_changed, same_text, text_facts
from transformer.training.state import RunState, load_weights, must_fit, random_state, set_random_state
from transformer.training_utils import Objective


class ResumableRun:
    """The model, its optimizers, the text and the position in it, of a run that can be saved and resumed."""

    def __init__(
        self, config: TrainConfig, data: TextData, callbacks: Sequence[Callback] = (), dist: Dist | None = None
    ) -> None:
        """Raises ConfigError for impossible settings, ValueError if the device or other processes are missing."""
        self.config, self.data, self.callbacks, self.dist = config.check(), data, callbacks, dist or Dist()
        self.device = self.dist.own(pick_device(config.device))
        self.precision = Precision(self.device, chosen_dtype(config, self.device, self.dist), config.shard)
        self.machine = machine(self.device, self.precision.dtype, config.kernels)
        torch.manual_seed(config.seed)
        model = DecoderOnlyTransformer(config.model)
        accelerate(model, config.kernels)  # faster versions of the core's code, unless the config says plain
        if config.activation_checkpointing:
            checkpoint_activations(model)
        self.model = self.dist.place(model, self.device, model.layers if config.shard else None)
        self.objective = Objective(self.model, data.tokenizer.eot_id if config.data.mask_documents else None)
        self.optimizers = build_optimizers(self.model, config.optimizer, DistributedMuon)
        self.inside = InsideWatch(data, config.data.seq_length)
        self.so_far = RunState()
        self.batches = open_batches(data, config, self.so_far.data, self.dist)
        self.saved_at = time.monotonic()
        self._seed_dropout()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return max(1, self.data.tokens_per_epoch // (self.config.tokens_per_step * self.dist.world_size))

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the run."""
        return min(self.config.epochs * self.steps_per_epoch, self.config.max_steps or self.config.epochs * 10**12)

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.so_far.step

    @property
    def tokens(self) -> int:
        """Tokens trained on, by all processes together."""
        return self.so_far.tokens

    @property
    def epoch(self) -> int:
        """The epoch of the last step, counted from 1."""
        return max(1, -(-self.step // self.steps_per_epoch))

    @property
    def directory(self) -> Path:
        """The folder of this run's files."""
        return Path(self.config.checkpoint_dir)

    def emit(self, event: Event) -> None:
        """Passes an event to every callback."""
        for callback in self.callbacks:
            callback(event)

    def measure_inside(self) -> None:
        """With watch_inside, emits the habits of the heads and the in-context loss; changes nothing about training."""
        if self.config.watch_inside:
            self.so_far.metric_sums.pause()
            with self.dist.unsharded(self.model) as model:  # of several processes, rank 0 measures
                for event in self.inside.measure(model, self.step) if self.dist.is_main else ():
                    self.emit(event)

    def save(self, score: EvalMetrics, summary: Mapping[str, float | str] | None = None) -> Path:
        """Writes the epoch's checkpoint: weights, their score and `summary`. Returns its path.

        With keep_last, earlier checkpoints of this run are removed afterwards.
        """
        encoding = self.data.tokenizer.short_name
        path = checkpoint.epoch_path(self.directory, self.epoch, encoding)
        metrics = {"validation_loss": score.loss, "bits_per_byte": score.bits_per_byte, **(summary or {})}
        others = [(epoch, loss) for epoch, loss in self.so_far.saved_epochs if epoch != self.epoch]
        self.so_far.saved_epochs = [*others, (self.epoch, score.loss)]
        weights = self.dist.full_state_dict(self.model)  # all processes take part
        if self.dist.is_main:
            checkpoint.save(path, {**self._contents(), "model": weights, "metrics": metrics})
            checkpoint.remove_epochs(self.directory, encoding, self.so_far.saved_epochs, self.config.keep_last)
        return path

    def save_state(self) -> Path:
        """Writes everything that resume() needs; the previous state is kept too. Returns its path."""
        self.so_far.metric_sums.pause()
        self.emit(Progress(self.step, "saving"))
        path = checkpoint.state_path(self.directory, self.data.tokenizer.short_name)
        path = sharded_checkpoint.save(path, self.state(), self.dist)
        self.saved_at = time.monotonic()
        return path

    def resume(self, path: Path, changed_text: bool = False) -> None:
        """Continues from what save_state() wrote. Raises CheckpointError if that is unreadable or does not fit."""
        self.load_state(sharded_checkpoint.load(path), path, changed_text)

    def state(self) -> dict[str, Any]:
        """Returns everything that a resumed run needs. All processes must call it; rank 0's is complete."""
        return {
            **self._contents(),
            **self.so_far.to_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": self.dist.gather(random_state(self.device)),
            "world_size": self.dist.world_size,
            "job": self.dist.job,
            "loss_scale": self.precision.state(),
        }

    def load_state(self, contents: dict[str, Any], path: Path, changed_text: bool = False) -> None:
        """Restores state(); `path` is for error messages. Raises CheckpointError if the state does not fit.

        With changed_text, a text that has changed since is read from its start.
        """
        if "optimizers" not in contents:
            raise CheckpointError(f"{path} holds a model, but not the state of a run: see training_state_*")
        self.data = same_text(self.data, contents, self.config.data.dataset, changed_text)
        load_weights(contents, path, self.model, self.optimizers)
        with must_fit(path):
            self.so_far = RunState.from_dict(contents)
        if has_changed(self.data.digest, contents):
            self.so_far.start_new_text()
        if len(set(self.dist.gather(self.step))) > 1:
            raise CheckpointError(f"{path} differs between machines: copy one of them to all")
        if path.parent.resolve() != self.directory.resolve():
            self.so_far.saved_epochs = []  # in another folder these names may belong to another run
        with must_fit(path):
            self.precision.restore(contents.get("loss_scale", []))
            if self.dist.rank < len(contents["random"]):
                set_random_state(contents["random"][self.dist.rank], self.device)
            else:  # fewer processes saved this state
                self._seed_dropout()
        self.batches = open_batches(self.data, self.config, self.so_far.data, self.dist)

    def initialise_from(self, contents: dict[str, Any], path: Path) -> None:
        """Starts a new run with the weights of a loaded checkpoint. Raises CheckpointError if they do not fit."""
        load_weights(contents, path, self.model)
        before = {name: contents.get(name) for name in ("step", "tokens", "init_from")}
        self.so_far.init_from = {"path": str(path), "dataset": checkpoint.trained_on(contents), **before}
        if "imported" in contents:
            self.so_far.init_from["imported"] = contents["imported"]

    def advice_after_divergence(self) -> str:
        """Returns what to type after the run has diverged; a resumed run would keep its learning rate."""
        optimizer = self.config.optimizer
        muon = f" and --muon-learning-rate {optimizer.muon_learning_rate:g}" if optimizer.optimizer == "muon" else ""
        advice = f"Start again with a lower learning rate than --learning-rate {optimizer.learning_rate:g}{muon}"
        finite = [(loss, epoch) for epoch, loss in self.so_far.saved_epochs if math.isfinite(loss)]
        if not finite:
            return advice
        best = checkpoint.epoch_path(self.directory, min(finite)[1], self.data.tokenizer.short_name)
        return f"{advice}, from random weights or with --init-from {best}"

    def _seed_dropout(self) -> None:
        """Gives every process except the first, whose generator also drew the weights, dropout of its own."""
        if not self.dist.is_main:
            torch.manual_seed(random.Random(f"{self.config.seed} {self.dist.rank} {self.step}").getrandbits(63))

    def _contents(self) -> dict[str, Any]:
        contents = checkpoint.model_contents(self.model, self.config, self.data.tokenizer)
        counts = {"step": self.step, "epoch": self.epoch, "tokens": self.tokens}
        origin = {"machine": self.machine, "init_from": self.so_far.init_from, "text": text_facts(self.data)}
        return {**contents, **counts, **origin}
