"""A training run, from opening its text to its last step: what its processes do together, and how it is stopped."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType

from transformer.cli.train.display import TrainingDisplay
from transformer.config import TrainConfig
from transformer.data.contracts import Notify, TextData
from transformer.data.hub.errors import HubError
from transformer.data.open import open_dataset
from transformer.distributed.processes import Dist
from transformer.text import Tokenizer, tokenizer_from_state
from transformer.trainer import OtherProcessError, Trainer, TrainingError
from transformer.training import checkpoint
from transformer.training.checkpoint import CheckpointError

NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
"""What the system says where a disk is full, a file too large for it, or a quota used up."""


def as_opened(config: TrainConfig, data: TextData) -> TrainConfig:
    """Returns the config with what is known once the data is open: the vocabulary, and a hub dataset's commit."""
    revision = data.revision or config.data.revision
    return replace(
        config,
        model=replace(config.model, vocab_size=data.tokenizer.vocab_size),
        data=replace(config.data, revision=revision),
    )


PATIENCE = 30.0  # seconds that a process which has nothing to say leaves to the one that has


@contextlib.contextmanager
def told_once(kinds: tuple[type[Exception], ...] = (ValueError,)) -> Iterator[None]:
    """Around what fails on all processes alike, such as a misspelt flag: one on each machine says how.

    torchrun ends all processes as soon as one has ended, so the others wait for that.
    """
    try:
        yield
    except kinds:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(PATIENCE)
            raise SystemExit(2) from None
        raise


def open_together(config: TrainConfig, tokenizer: Tokenizer | None, tell: Notify, dist: Dist) -> TextData:
    """Opens the dataset, on rank 0 first: it finds the commit and makes a vocabulary that is still to be trained.

    The others take both from it, and find in the cache, which they share, what it has fetched and tokenized.
    """
    data = open_dataset(config.data, tokenizer, tell) if dist.is_main else None
    own = None if data is None else (as_opened(config, data).data.revision, data.tokenizer.state())
    revision, vocabulary = dist.from_main(own)
    return data or open_dataset(replace(config.data, revision=revision), tokenizer_from_state(vocabulary), tell)


def fit(trainer: Trainer, display: TrainingDisplay) -> int | None:
    """Trains; Ctrl-C and SIGTERM stop it after its step, a second one at once. Returns the signal that did.

    Of several processes one that gets a signal stops all. torchrun passes it on to every one, and ends what takes
    longer than its --shutdown-timeout: there a second signal says nothing new.
    """
    asked: list[int] = []
    is_alone = trainer.dist.world_size == 1

    def ask(number: int, frame: FrameType | None) -> None:
        if asked and is_alone:
            raise KeyboardInterrupt
        asked.append(number)
        if is_alone:  # else it may be that another process has failed
            display.console.print("stopping after this step, with the state saved; once more stops at once")
        trainer.stop()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with display, told_once((TrainingError, CheckpointError)):
            trainer.fit()
    except (HubError, OtherProcessError):  # between two steps, so the state is whole
        path = trainer.save_state()
        display.console.print(f"stopped at step {trainer.step} for want of text; --resume goes on from {path}")
        raise
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise ValueError(
            f"stopped at step {trainer.step}: no room in {trainer.directory} for what is to be saved "
            f"({error.strerror}): make room on the disk, then --resume goes on from the state last saved"
        ) from error
    except KeyboardInterrupt:
        if checkpoint.states(trainer.directory):
            where = f"the state last saved in {trainer.directory}"
            display.console.print(f"stopped at step {trainer.step}; --resume goes on from {where}")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return asked[0] if asked else signal.SIGTERM if trainer.stopping else None
