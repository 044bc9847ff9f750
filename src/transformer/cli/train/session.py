"""Steps that the processes of a run take together: they open the text, report errors once, train, and stop."""

from __future__ import annotations

import shlex
import signal
from dataclasses import replace
from pathlib import Path

from transformer.cli.console import rank_prefix, reported_once
from transformer.cli.options import command_line
from transformer.cli.signals import handled
from transformer.cli.train.display import TrainingDisplay
from transformer.config import TrainConfig
from transformer.data.contracts import Notify, TextData
from transformer.data.open import open_dataset
from transformer.distributed.processes import Dist
from transformer.text import Tokenizer, tokenizer_from_state
from transformer.trainer import Trainer
from transformer.training import checkpoint
from transformer.training.checkpoint import CheckpointError
from transformer.training.errors import TrainingError
from transformer.training.events import Event
from transformer.training.files import NO_ROOM
from transformer.training.save_on_error import SaveOnError


def as_opened(config: TrainConfig, data: TextData) -> TrainConfig:
    """Returns the config with the facts known once the data is open: vocabulary size, and a hub dataset's commit."""
    revision = data.revision or config.data.revision
    return replace(
        config,
        model=replace(config.model, vocab_size=data.tokenizer.vocab_size),
        data=replace(config.data, revision=revision),
    )


def open_together(config: TrainConfig, tokenizer: Tokenizer | None, notify: Notify, dist: Dist) -> TextData:
    """Opens the dataset on rank 0 first, which resolves the commit and trains the vocabulary if there is none yet.

    The other processes receive both, and read what rank 0 has fetched and tokenized from the shared cache.
    """
    data = open_dataset(config.data, tokenizer, notify) if dist.is_main else None
    own = None
    if data is not None:
        own = (as_opened(config, data).data.revision, data.tokenizer.state(), data.digest)
    revision, vocabulary, digest = dist.from_main(own)
    data = data or open_dataset(replace(config.data, revision=revision), tokenizer_from_state(vocabulary), notify)
    if data.digest != digest:
        raise ValueError(f"{config.data.dataset} differs between the machines: give all of them the same text")
    return data


def fit(trainer: Trainer, display: TrainingDisplay) -> int | None:
    """Trains until the end, or until a signal that asks the process to end: returns the signal, or None.

    The run stops after the current step. Ctrl-C a second time stops it at once; other signals may come twice, as when a
    terminal is closed. With several processes a signal to one stops all, and the second is ignored: torchrun passes
    every signal to every process, and kills those that need longer than its --shutdown-timeout.
    """
    received: list[int] = []
    is_alone = trainer.dist.world_size == 1

    def handle(number: int) -> None:
        if number == signal.SIGINT and received and is_alone:
            raise KeyboardInterrupt
        received.append(number)
        trainer.stop()

    def announce(event: Event) -> None:  # not in the handler, which may have interrupted another line
        if received and is_alone:  # with several processes, the cause may be that another one failed
            trainer.callbacks = [callback for callback in trainer.callbacks if callback is not announce]
            display.console.print("stopping after this step and saving the state; press Ctrl-C again to stop at once")

    trainer.callbacks = [*trainer.callbacks, announce]
    try:
        saved = SaveOnError(trainer, display.console.print)
        with handled(handle), reported_once((TrainingError, CheckpointError)), display, saved:
            trainer.fit()
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise ValueError(
            f"stopped at step {trainer.step}: no space in {trainer.directory} for the file to be saved "
            f"({error.strerror}): free some disk space, then --resume continues from the last saved state"
        ) from error
    except KeyboardInterrupt:
        if checkpoint.states(trainer.directory):
            where = f"the last saved state in {trainer.directory}"
            display.console.print(f"stopped at step {trainer.step}; --resume continues from {where}")
        raise
    return received[0] if received else signal.SIGTERM if trainer.stopping else None


def resume_line(directory: Path) -> str:
    """Returns the command that continues a run, or a few words under torchrun, whose own flags are unknown."""
    if rank_prefix():
        return "the same line with --resume"
    return f"{command_line()} train --resume --checkpoint-dir {shlex.quote(str(directory))}"
