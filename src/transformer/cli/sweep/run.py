"""A sweep: the runs of a grid one after another, then all of them in one table and one picture."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from transformer.cli.console import is_out_of_memory, one_line
from transformer.cli.run_table import run_table
from transformer.cli.sweep.grid import Variant
from transformer.cli.train.resume import load_state, merged
from transformer.cli.train.run import train
from transformer.config import ConfigError
from transformer.data.hub.errors import HubError
from transformer.reporting.history import History, read_histories
from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.reporting.run_plots import save_loss_curve
from transformer.training.checkpoint import CheckpointError, states
from transformer.training.events import RunEnded, RunStarted


@dataclass
class Sweep:
    """Runs of a grid: those that were begun; by name which of them failed or stopped; why they failed."""

    variants: Sequence[Variant]
    begun: list[Variant] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def train(self, resume: bool, out: Console) -> None:
        """Trains one run after another; with `resume` only what is left. A run that fails does not end the others.

        Raises ConfigError, before the first run, where settings contradict what a run to be resumed has stored;
        SystemExit after a signal; ValueError where every run has failed.
        """
        if resume:
            check_stored(self.variants)
        try:
            for variant in self.variants:
                self.begun.append(variant)
                out.print(f"\nrun {len(self.begun)} of {len(self.variants)}: {variant.name}", style="bold")
                with self.noted(variant, out):
                    if resume and is_finished(variant):
                        out.print("is finished, and stays as it is")
                    else:
                        has_state = bool(states(variant.directory))
                        train(variant.config, resume and has_state, None, variant.typed)
        finally:
            self.show(out)
        if len(self.notes) == len(self.variants):
            raise ValueError(f"every run failed; {self.reasons[0]}")

    @contextlib.contextmanager
    def noted(self, variant: Variant, out: Console) -> Iterator[None]:
        """Around a run: keeps in mind why it failed, where the next one may go well all the same."""
        try:
            yield
        except HubError:  # the next one would want the same text
            raise
        except (ValueError, RuntimeError) as error:
            if not isinstance(error, ValueError) and not is_out_of_memory(error):
                raise
            self.notes[variant.name] = "failed"
            self.reasons.append(f"{variant.name} failed: {one_line(str(error))}")
            out.print(self.reasons[-1], style="yellow")
        except (KeyboardInterrupt, SystemExit):
            self.notes[variant.name] = "stopped"
            out.print("the sweep stops here; the same line with --resume skips what is finished and does the rest")
            raise

    def show(self, out: Console) -> None:
        """Shows the runs begun so far in a table, and draws them."""
        files = [file for variant in self.begun if (file := variant.directory / METRICS_FILE).is_file()]
        silent = [variant.name for variant in self.begun if variant.directory / METRICS_FILE not in files]
        runs = read_histories(files)
        out.print()
        out.print(run_table([*runs, *(History(name, [], []) for name in silent)], self.notes))
        for reason in self.reasons:
            out.print(reason)
        if any(run.steps for run in runs):
            beside = self.variants[0].directory.parent
            picture = save_loss_curve(files, beside / "comparison.png", beside / "comparison.svg")
            out.print(f"all in one picture: {picture}")


def check_stored(variants: Sequence[Variant]) -> None:
    """Raises ConfigError where settings of one of the runs contradict those that it was begun with."""
    found = []
    for variant in variants:
        with contextlib.suppress(CheckpointError):  # none yet, or damaged: the run says so in its turn
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
