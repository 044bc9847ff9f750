"""A sweep: trains the runs of a grid one after another, then shows them in one table and one picture."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from transformer.cli.console import is_out_of_memory, one_line
from transformer.cli.run_table import run_table
from transformer.cli.sweep.grid import Variant
from transformer.cli.train.resume import load_state, merged
from transformer.cli.train.run import draw, train
from transformer.config import ConfigError
from transformer.data.hub.errors import HubError
from transformer.distributed.processes import Dist
from transformer.reporting.history import History, read_histories
from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.training.checkpoint import CheckpointError, states
from transformer.training.events import RunEnded, RunStarted
from transformer.training.run_folder import RunLock


@dataclass
class Sweep:
    """The runs of a grid: which were started, which failed or were stopped (by name), and the reasons."""

    variants: Sequence[Variant]
    started: list[Variant] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The folder that holds the folders of all runs."""
        return self.variants[0].directory.parent

    def train(self, resume: bool, out: Console) -> None:
        """Trains one run after another; with `resume` only the unfinished ones. If a run fails, the others continue.

        Raises ConfigError before the first run, if settings contradict the stored ones of a run to be resumed;
        SystemExit after a signal; ValueError if every run failed.
        """
        with RunLock(Dist(), out.print) as lock:  # each run locks its own folder as well
            if resume:
                lock.take(self.folder, create=False)
                check_stored(self.variants)
            lock.take(self.folder)
            try:
                for variant in self.variants:
                    self.started.append(variant)
                    out.print(f"\nrun {len(self.started)} of {len(self.variants)}: {variant.name}", style="bold")
                    with self.noted(variant, out):
                        if resume and is_finished(variant):
                            out.print("is finished and is skipped")
                        else:
                            has_state = bool(states(variant.directory))
                            train(variant.config, resume and has_state, None, variant.typed)
            finally:
                self.show(out)
        if len(self.notes) == len(self.variants):
            raise ValueError(f"every run failed; {self.reasons[0]}")

    @contextlib.contextmanager
    def noted(self, variant: Variant, out: Console) -> Iterator[None]:
        """Records why a run failed, if the next one may still succeed."""
        try:
            yield
        except HubError:  # the next run needs the same text
            raise
        except (ValueError, RuntimeError) as error:
            if not isinstance(error, ValueError) and not is_out_of_memory(error):
                raise
            self.notes[variant.name] = "failed"
            self.reasons.append(f"{variant.name} failed: {one_line(str(error))}")
            out.print(self.reasons[-1], style="yellow")
        except (KeyboardInterrupt, SystemExit):
            self.notes[variant.name] = "stopped"
            out.print("the sweep was stopped; the same line with --resume continues with the unfinished runs")
            raise

    def show(self, out: Console) -> None:
        """Prints a table of the runs started so far, and draws them."""
        files = [file for variant in self.started if (file := variant.directory / METRICS_FILE).is_file()]
        silent = [variant.name for variant in self.started if variant.directory / METRICS_FILE not in files]
        runs = read_histories(files)
        out.print()
        out.print(run_table([*runs, *(History(name, [], []) for name in silent)], out.width, self.notes))
        for reason in self.reasons:
            out.print(reason)
        draw("all in one picture", files, self.folder / "comparison", out)


def check_stored(variants: Sequence[Variant]) -> None:
    """Raises ConfigError if the settings of a run contradict those that it was started with."""
    found = []
    for variant in variants:
        with contextlib.suppress(CheckpointError):  # none yet, or damaged: reported when the run's turn comes
            _, contents = load_state(None, variant.directory, Console(quiet=True))
            try:
                merged(contents, variant.config, variant.typed)
            except ConfigError as error:
                found += [f"{variant.name}: {problem}" for problem in error.problems]
    if found:
        raise ConfigError(found)


def is_finished(variant: Variant) -> bool:
    """Whether the run has taken all steps that its settings now ask for, or stopped early (--patience)."""
    path, config = variant.directory / METRICS_FILE, variant.config
    events = read_metrics(path) if path.is_file() else []
    if not events or not isinstance(end := events[-1], RunEnded) or end.stopped:
        return False
    start = next(event for event in reversed(events) if isinstance(event, RunStarted))
    steps = config.epochs * start.steps_per_epoch
    return end.early_stopped or end.step >= min(steps, config.max_steps or steps)
