"""A training run between the opening of its text and its last line: what is asked of it meanwhile, and how it ends."""

from __future__ import annotations

import signal
from dataclasses import replace
from types import FrameType

from display import TrainingDisplay
from transformer.config import TrainConfig
from transformer.dataset import TextData
from transformer.remote.hub import HubError
from transformer.trainer import Trainer


def as_opened(config: TrainConfig, data: TextData) -> TrainConfig:
    """Returns the config with what is known once the data is open: the vocabulary, and a hub dataset's commit."""
    revision = data.revision or config.data.revision
    return replace(
        config,
        model=replace(config.model, vocab_size=data.tokenizer.vocab_size),
        data=replace(config.data, revision=revision),
    )


def fit(trainer: Trainer, display: TrainingDisplay) -> int | None:
    """Trains; Ctrl-C and SIGTERM stop it after its step, a second one at once. Returns the signal that did."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        display.console.print("stopping after this step, with the state saved; once more stops at once")
        trainer.stop()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with display:
            trainer.fit()
    except HubError:  # between two steps, so the state is whole
        path = trainer.save_state()
        display.console.print(f"stopped at step {trainer.step} for want of text; --resume goes on from {path}")
        raise
    except KeyboardInterrupt:
        if any(trainer.directory.glob("training_state_*.pt")):
            where = f"the state last saved in {trainer.directory}"
            display.console.print(f"stopped at step {trainer.step}; --resume goes on from {where}")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return asked[0] if asked else None
