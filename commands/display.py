"""The training run on the terminal: a live line of numbers under a progress bar, and a lasting line where it matters.

While text is fetched from the hub, a second line shows the shard that is coming, the speed and the cache. Where
standard output is not a terminal, only the lasting lines are printed, a step line now and then among them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.status import Status
from rich.text import Text

from transformer.config import TrainConfig
from transformer.dataset import FetchProgress, Tell
from transformer.runtime.metrics import EpochMetrics, EvalMetrics, Event, RunEnded, RunStarted, StepMetrics


class TrainingDisplay:
    """An observer of a training run; use it as a context manager around fit()."""

    def __init__(self, console: Console, config: TrainConfig) -> None:
        self.console, self.config = console, config
        self.progress = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=8),
            TextColumn("{task.fields[numbers]}"),  # all of it fits a terminal of 80 columns
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("training", total=None, numbers="")
        self.fetching: TaskID | None = None
        self.lock = threading.Lock()
        self.status: Status | None = None
        self.lines_every = 0
        self.tell = teller(console, self._fetched)
        """Shows news of the data: a lasting line, or how far fetching is. May be called from any thread."""

    @contextlib.contextmanager
    def opening(self, what: str) -> Iterator[None]:
        """Shows what is waited for before the run begins, and how far its fetching is."""
        with self.console.status(Text(what)) as self.status:
            yield
        self.status = None

    def _fetched(self, news: FetchProgress) -> None:
        numbers = fetch_numbers(news)
        if self.status is not None:
            self.status.update(Text(f"fetching {numbers}, {news.fetched_units} of {news.units} row groups"))
            return
        shown: dict[str, Any] = {"total": news.units, "completed": news.fetched_units, "numbers": numbers}
        with self.lock:
            if self.fetching is None:
                self.fetching = self.progress.add_task("fetching", **shown)
        self.progress.update(self.fetching, **shown, visible=news.fetched_units < news.units)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._started(event)
            case StepMetrics():
                numbers = step_numbers(event)
                self.progress.update(self.task, completed=event.step, numbers=numbers)
                if not self.console.is_terminal and event.step % self.lines_every == 0:
                    self.console.print(f"step {event.step}: {numbers}, gradient norm {event.grad_norm:.2f}")
            case EvalMetrics():
                self.console.print(
                    f"step {event.step}: validation loss {event.loss:.4f}, perplexity {event.perplexity:.2f}, "
                    f"{event.bits_per_byte:.3f} bits per byte"
                )
            case EpochMetrics():
                self.console.print(
                    f"epoch {event.epoch}: "
                    f"train loss {event.train_loss:.4f} (perplexity {event.train_perplexity:.2f}), "
                    f"validation loss {event.validation_loss:.4f} (perplexity {event.validation_perplexity:.2f}); "
                    f"saved {event.checkpoint}"
                )
                self.console.print(f"{event.verdict}: {event.reason}")
            case RunEnded():
                if event.gave_up:
                    self.console.print(f"validation no longer improves: ended at step {event.step}, as --patience asks")
                rate = event.tokens / event.seconds if event.seconds else 0.0
                self.console.print(f"trained on {event.tokens:,} tokens in {event.seconds:.0f} s, {rate:,.0f} tokens/s")

    def _started(self, event: RunStarted) -> None:
        model, data = self.config.model, self.config.data
        self.console.print(
            f"{event.parameters / 1e6:.2f}M parameters: {model.num_layers} layers, width {model.d_model}, "
            f"{model.num_heads} heads, vocabulary {model.vocab_size:,}; on {event.device}"
        )
        self.console.print(
            f"{data.dataset}: {event.total_steps:,} steps of {event.tokens_per_step:,} tokens, "
            f"{event.steps_per_epoch:,} an epoch"
        )
        log_every = self.config.log_every
        self.lines_every = max(1, event.total_steps // 20 // log_every) * log_every
        self.progress.update(self.task, total=event.total_steps, completed=event.step)


def teller(console: Console, show: Callable[[FetchProgress], object]) -> Tell:
    """Returns what prints a line of news about the data so that it lasts, and gives numbers of fetching to `show`."""

    def tell(news: str | FetchProgress) -> None:
        if isinstance(news, str):
            console.print(news, style="dim")
        else:
            show(news)

    return tell


def step_numbers(event: StepMetrics) -> str:
    """Returns the numbers of a step in one line."""
    return (
        f"loss {event.loss:.3f}  ppl {event.perplexity:.1f}  lr {event.learning_rate:.1e}  "
        f"{event.tokens_per_second:,.0f} tok/s"
    )


def fetch_numbers(news: FetchProgress) -> str:
    """Returns how the fetching goes in a few words."""
    return f"shard {news.shard}  {news.bytes_per_second / 1e6:.1f} MB/s  cache {news.cache_bytes / 1e9:.2f} GB"
