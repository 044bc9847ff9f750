"""The display of a training run: a progress bar with the current numbers, and printed lines for important events.

While text is fetched from the hub, or the model is evaluated, a second bar shows the progress. If standard output is
not a terminal, only the lines are printed, with a line for about every twentieth of the steps.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

from transformer.cli.download_progress import fetch_numbers, notifier
from transformer.cli.formatting import counted, duration, in_one_line, inside_numbers, step_numbers
from transformer.cli.progress import Bars
from transformer.cli.train.forecast import Forecast
from transformer.cli.train.slow_steps import SlowSteps
from transformer.cli.waiting import threads_spin
from transformer.config import TrainConfig
from transformer.data.contracts import FetchProgress
from transformer.planning.cost import readable
from transformer.training.events import (
    EpochMetrics,
    EvalMetrics,
    Event,
    InsideMetrics,
    Progress,
    RunEnded,
    RunStarted,
    Sample,
    StepMetrics,
)


class TrainingDisplay:
    """A callback of a training run; also a context manager around fit()."""

    def __init__(self, console: Console, config: TrainConfig) -> None:
        self.console, self.config = console, config
        self.bars = Bars(console)
        self.status: Status | None = None
        self.lines_every = self.first_step = 0
        self.evaluated_step = -1
        self.forecast: Forecast | None = None
        self.slow_steps: SlowSteps | None = None
        self.last_step: StepMetrics | None = None
        self.peak_utilisation = 0.0
        self.on_cpu = True
        self.verdict = ""
        self.notify = notifier(console, self._fetched)
        """Prints a message about the data, or shows the progress of fetching. May be called from any thread."""

    @contextlib.contextmanager
    def opening(self, what: str) -> Iterator[None]:
        """Shows a status line before the run starts, with the progress of fetching."""
        with self.console.status(Text(what)) as self.status:
            yield
        self.status = None

    def _fetched(self, message: FetchProgress) -> None:
        numbers = fetch_numbers(message)
        if self.status is not None:
            self.status.update(
                Text(f"fetching {numbers}, {message.fetched_row_groups} of {message.row_groups} row groups")
            )
            return
        self.bars.second_bar("fetching", message.fetched_row_groups, message.row_groups, numbers)

    def __enter__(self) -> Self:
        self.bars.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.progress.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._started(event)
            case Progress():
                self._busy(event)
            case StepMetrics():
                self.last_step = event
                self.peak_utilisation = max(self.peak_utilisation, event.utilisation)
                memory = "" if self.on_cpu or not event.memory_bytes else f"  {readable(event.memory_bytes)}"
                numbers = f"{step_numbers(event)}{memory}"
                self.bars.steps(completed=event.step, numbers=numbers)
                if not self.console.is_terminal and event.step % self.lines_every == 0:
                    self.console.print(f"step {event.step}: {numbers}, gradient norm {event.grad_norm:.2f}")
            case EvalMetrics():
                self.evaluated_step = event.step
                self.console.print(
                    f"step {event.step}: validation loss {event.loss:.4f}, perplexity {event.perplexity:.2f}, "
                    f"{event.bits_per_byte:.3f} bits per byte"
                )
            case InsideMetrics():
                if event.step == self.evaluated_step:  # the early ones would be many lines
                    self.console.print(inside_numbers(event), style="dim")
            case Sample():
                written = Text(
                    f"step {event.step}, sample: {in_one_line(event.prompt + event.text) or 'nothing'}",
                    style="dim italic",
                )
                self.console.print(written, no_wrap=True, overflow="ellipsis")
            case EpochMetrics():
                self.console.print(
                    f"epoch {event.epoch}: "
                    f"train loss {event.train_loss:.4f} (perplexity {event.train_perplexity:.2f}), "
                    f"validation loss {event.validation_loss:.4f} (perplexity {event.validation_perplexity:.2f}); "
                    f"saved {event.checkpoint}"
                )
                if (verdict := f"{event.verdict}: {event.reason}") != self.verdict:  # the same one is not repeated
                    self.verdict = verdict
                    self.console.print(verdict)
            case RunEnded():
                self._ended(event)

    def _started(self, event: RunStarted) -> None:
        model, data = self.config.model, self.config.data
        self.console.print(
            f"{event.parameters / 1e6:.2f}M parameters: {model.num_layers} layers, width {model.d_model}, "
            f"{model.num_heads} heads, vocabulary {model.vocab_size:,}; on {event.device}, "
            f"{event.precision}, kernels {event.kernels_chosen}"
        )
        self.console.print(
            f"{data.dataset}: {counted(event.total_steps, 'step')} of {counted(event.tokens_per_step, 'token')}, "
            f"{event.steps_per_epoch:,} per epoch"
        )
        self.on_cpu = event.device == "cpu"
        log_every = self.config.log_every
        self.lines_every = max(1, event.total_steps // 20 // log_every) * log_every
        self.bars.steps(total=event.total_steps, completed=event.step)
        self.forecast = Forecast(self.config, event)
        self.slow_steps = SlowSteps() if self.on_cpu and threads_spin(os.environ) else None
        self.first_step = -1 if event.evaluation_pending else event.step

    def _ended(self, event: RunEnded) -> None:
        if event.early_stopped:
            self.console.print(f"the validation loss stopped improving: ended at step {event.step}, as --patience asks")
        if event.step == self.first_step and not event.stopped:
            self.console.print(
                f"already finished: the run has taken all of its {event.step:,} steps; a larger --max-steps "
                "or --epochs continues it"
            )
            return
        rate = event.tokens / event.seconds if event.seconds else 0.0
        memory = self.last_step.memory_bytes if self.last_step else 0
        self.console.print(
            f"trained on {counted(event.tokens, 'token')} in {duration(event.seconds)}, {rate:,.0f} tokens/s"
            + (f", {readable(memory)} of memory at the maximum{', PyTorch included' * self.on_cpu}" if memory else "")
            + (f", up to {self.peak_utilisation:.0%} of the device's peak FLOP/s" if self.peak_utilisation else "")
        )

    def _busy(self, phase: Progress) -> None:
        """Updates the bars; after a few steps prints how long the run will take, and once why steps became slow."""
        if phase.activity == "training":
            self.bars.steps(completed=phase.step + phase.done / phase.total)
        else:
            self.bars.steps(numbers=phase.activity)
        if phase.activity == "evaluating":
            self.bars.second_bar("evaluating", phase.done, phase.total, "rows of validation text")
        for watch in (self.forecast, self.slow_steps):
            if watch is not None and (line := watch.at(phase)):
                self.console.print(line)
