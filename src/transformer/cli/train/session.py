"""Steps that the processes of a run take together: they open the text, report errors once, train, and stop."""

from __future__ import annotations

import errno
import signal
from dataclasses import replace
from types import FrameType

from transformer.cli.console import reported_once
from transformer.cli.train.display import TrainingDisplay
from transformer.config import TrainConfig
from transformer.data.contracts import Notify, TextData
from transformer.data.hub.errors import HubError
from transformer.data.open import open_dataset
from transformer.distributed.processes import Dist
from transformer.text import Tokenizer, tokenizer_from_state
from transformer.trainer import Trainer
from transformer.training import checkpoint
from transformer.training.checkpoint import CheckpointError
from transformer.training.errors import OtherProcessError, TrainingError

NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
"""The error numbers of a full disk, a file that is too large, and an exhausted quota."""


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
    """Trains until the end, or until a signal: returns the signal, or None.

    Ctrl-C and SIGTERM stop the run after the current step; a second one stops it at once. With several processes, a
    signal to one stops all, and a second one is ignored: torchrun passes every signal to every process, and kills those
    that need longer than its --shutdown-timeout.
    """
    received: list[int] = []
    is_alone = trainer.dist.world_size == 1

    def handle(number: int, frame: FrameType | None) -> None:
        if received and is_alone:
            raise KeyboardInterrupt
        received.append(number)
        if is_alone:  # with several, the cause may be that another process failed
            display.console.print("stopping after this step and saving the state; press Ctrl-C again to stop at once")
        trainer.stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with display, reported_once((TrainingError, CheckpointError)):
            trainer.fit()
    except (HubError, OtherProcessError):  # between two steps, so the state is whole
        path = trainer.save_state()
        display.console.print(f"stopped at step {trainer.step} because text is missing; --resume continues from {path}")
        raise
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
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return received[0] if received else signal.SIGTERM if trainer.stopping else None
