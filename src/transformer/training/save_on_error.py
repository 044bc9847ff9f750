"""Every error that ends a run saves its state first, here, unless the state is saved already or cannot be whole.

An error in the middle of a step leaves the weights as they were before it, but the random generator has moved, so the
generator is set back first: a resumed run takes the step again, bit for bit. Once an optimizer has begun to change the
weights, a step cannot be undone; the last saved state is used then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from transformer.data.hub.errors import HubError
from transformer.training import checkpoint
from transformer.training.errors import OtherProcessError, TextError, TrainingError
from transformer.training.events import Event, Progress
from transformer.training.files import NO_ROOM
from transformer.training.resumable_run import ResumableRun
from transformer.training.state import random_state, set_random_state

TEXT_FAILED = (HubError, OtherProcessError, TextError)
"""Errors that end all processes of a run between the same two steps: only then can several save a state together."""


class SaveOnError:
    """A context manager around fit(), and a callback of its run. `notify` receives one line after an error."""

    def __init__(self, run: ResumableRun, notify: Callable[[str], object]) -> None:
        self.run, self.notify = run, notify
        self.first_step = run.step
        self.saved_step = self.changed_step = -1
        self.random: tuple[int, Any] = (-1, None)
        run.callbacks = [self, *run.callbacks]
        for optimizer in run.optimizers:
            optimizer.register_step_pre_hook(self._changes_weights)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress) and event.activity == "saving":
            self.saved_step = event.step  # or failed to save
        elif isinstance(event, Progress) and event.activity == "training" and not event.done:
            self.random = (event.step, random_state(self.run.device))

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        is_full = isinstance(error, OSError) and error.errno in NO_ROOM
        if not isinstance(error, Exception) or isinstance(error, TrainingError) or is_full:
            return  # Ctrl-C a second time: at once; the others say themselves what to do
        step = f"stopped at step {self.run.step}"
        step += " because text is missing" if isinstance(error, TEXT_FAILED) else ""
        if not self._can_save(error):
            if checkpoint.states(self.run.directory):
                self.notify(f"{step}; --resume continues from the last saved state in {self.run.directory}")
            return
        if self.random[0] == self.run.step:
            set_random_state(self.random[1], self.run.device)
        try:
            path = self.run.save_state()
        except (OSError, ValueError, RuntimeError) as failure:
            self.notify(f"{step}; its state could not be saved ({failure})")
        else:
            self.notify(f"{step}; --resume continues from {path}")

    def _can_save(self, error: Exception) -> bool:
        """Whether the run is between two steps, or can be set back there, and has taken steps that are not saved."""
        step = self.run.step
        is_common = self.run.dist.world_size == 1 or isinstance(error, TEXT_FAILED)
        return is_common and step > self.first_step and step not in (self.saved_step, self.changed_step)

    def _changes_weights(self, optimizer: torch.optim.Optimizer, *arguments: object) -> None:
        self.changed_step = self.run.step  # until the step is counted
