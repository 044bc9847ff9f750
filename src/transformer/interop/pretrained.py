"""A trained model for use from Python: text in, text out.

    import transformer
    model = transformer.load("checkpoints_demo")               # a file, a folder's latest, or "checkpoints_demo/best"
    model.generate("ROMEO:", max_new_tokens=60, seed=1)        # the new text, without the prompt
    model.generate(["ROMEO:", "JULIET:"], preset="creative")   # a list gives a list, generated as one batch
    model.chat("Is it far?")                                   # the answer of a model that has a chat template
    model.save_pretrained("my-model")                          # a folder that transformers loads

The commands find and load checkpoints with the same functions.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from transformer.config import ConfigError, Kernels, SamplingConfig, TrainConfig, Weights, seed_problems
from transformer.distributed.sharded_checkpoint import is_sharded_state
from transformer.inference.text_stream import ROWS, Prompt, TextStream
from transformer.interop.hf_export import save_pretrained, stored_dtype
from transformer.interop.importing import imported
from transformer.interop.model_card import provenance
from transformer.interop.sources import is_source
from transformer.kernels import accelerate, round_weights
from transformer.model import DecoderOnlyTransformer
from transformer.presets import CHAT_TOKENS, sampling_preset
from transformer.text import Tokenizer, chat_ids
from transformer.text.chat_template import Message, room_for_answer
from transformer.training import checkpoint
from transformer.training.checkpoint import LoadedModel
from transformer.training.device import pick_device


@dataclass(frozen=True)
class Pretrained:
    """A model in eval mode, its tokenizer, and the contents of the checkpoint that they come from."""

    loaded: LoadedModel

    @property
    def model(self) -> DecoderOnlyTransformer:
        return self.loaded.model

    @property
    def tokenizer(self) -> Tokenizer:
        return self.loaded.tokenizer

    @property
    def config(self) -> TrainConfig:
        """The settings of the training run; `config.model` is the shape of the model."""
        return self.loaded.config

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The scores stored in the checkpoint, such as "validation_loss" in nats per token and "bits_per_byte"."""
        return dict(self.loaded.contents.get("metrics", {}))

    @property
    def provenance(self) -> Mapping[str, str]:
        """Where the model comes from: dataset, steps, scores and command, or the source of an imported one."""
        return provenance(self.loaded)

    def __repr__(self) -> str:
        return f"<Pretrained {self.loaded.description}>"

    @overload
    def generate(self, prompts: str, max_new_tokens: int = ..., **options: Any) -> str: ...
    @overload
    def generate(self, prompts: Sequence[str], max_new_tokens: int = ..., **options: Any) -> list[str]: ...

    def generate(
        self,
        prompts: str | Sequence[str],
        max_new_tokens: int = 200,
        *,
        preset: str = "balanced",
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        **settings: Any,
    ) -> str | list[str]:
        """Returns the text that follows a prompt, or a list with the text that follows each prompt.

        `preset` names sampling settings, and `settings` change some of them, for example temperature=0.7. A text ends
        before the first string in `stop`, at end-of-text, or after max_new_tokens. Prompt i draws with the seed
        seed + i (None: a new seed) and gives the text that it gives alone. An empty prompt begins a new text. Raises
        ValueError for impossible settings.
        """
        rows = [prompts] if isinstance(prompts, str) else list(prompts)
        texts = self._continue(rows, max_new_tokens, preset, seed, stop, settings)
        return texts[0] if isinstance(prompts, str) else texts

    def chat(
        self,
        messages: str | Sequence[Message],
        max_new_tokens: int = CHAT_TOKENS,
        *,
        preset: str = "balanced",
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        variables: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> str:
        """Returns the model's answer to a chat: messages with a role (system, user, assistant) and a content.

        A text alone is the message of a user. The model's own chat template writes the prompt; `variables` are others
        that it reads, for example {"enable_thinking": False} for Qwen3. The other options are those of generate(); the
        answer also ends where the model's context is full. Raises ChatError, a ValueError, for a model without a
        template, and for messages that the template refuses or that leave no room for an answer.
        """
        chat = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        ids = chat_ids(self.tokenizer, chat, **(variables or {}))
        room = room_for_answer(ids, self.model.config.max_seq_len)
        return self._continue([ids], min(max_new_tokens, room), preset, seed, stop, settings)[0]

    def _continue(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        preset: str,
        seed: int | None,
        stop: str | Sequence[str],
        settings: Mapping[str, Any],
    ) -> list[str]:
        sampling = SamplingConfig.from_dict({**sampling_preset(preset).to_dict(), **settings})
        if problems := seed_problems(0 if seed is None else seed):
            raise ConfigError(problems)
        seed = secrets.randbits(32) if seed is None else seed
        stops = [stop] if isinstance(stop, str) else list(stop)
        texts: list[str] = []
        for start in range(0, len(prompts), ROWS):
            batch = prompts[start : start + ROWS]
            stream = TextStream(
                self.model, self.tokenizer, batch, sampling, max_new_tokens, seeds=seed + start, stop=stops
            )
            for _ in stream:
                pass
            texts += stream.texts
        return texts

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes a folder that `transformers` loads: hf_export.py. `main.py export` also compares the result there.

        Raises ValueError if no architecture of `transformers` expresses the model, or if the folder has files already.
        """
        dtype = stored_dtype(self.loaded.contents["model"].values())
        save_pretrained(self.model, self.tokenizer, Path(folder).expanduser(), provenance(self.loaded), dtype)


def load(
    source: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    weights: Weights = "float32",
    kernels: Kernels = "auto",
) -> Pretrained:
    """Returns a trained model with its tokenizer.

    source: a checkpoint, the folder of a run (its latest checkpoint), or FOLDER/best (its lowest validation loss).
    None: the latest of all runs in this folder, "best": the best of them. Or a model of another program, which is
    imported at its first use: hf:OWNER/NAME or hf:OWNER/NAME/FILE.gguf on the hub, a folder with its config.json, or a
    .gguf file. device: "auto", "cpu", "cuda" or "mps". weights: the format to which the weight matrices are rounded.
    kernels: see accelerate().
    Raises ValueError: CheckpointError, SourceError or HubError, one line each.
    """
    return Pretrained(load_checkpoint(find_checkpoint(source), device, weights, kernels))


def load_checkpoint(
    path: Path, device: str = "auto", weights: Weights = "float32", kernels: Kernels = "auto"
) -> LoadedModel:
    """Loads a checkpoint for generation and evaluation; the arguments are those of load()."""
    loaded = checkpoint.load_model(path, pick_device(device))
    accelerate(loaded.model, kernels)
    round_weights(loaded.model, weights)
    return loaded


def find_checkpoint(source: str | os.PathLike[str] | None = None) -> Path:
    """Returns the checkpoint that a source of load() names. Raises CheckpointError if there is none."""
    if source is None:
        return checkpoint.latest(Path())
    if not os.fspath(source):  # as a path it would be this folder
        raise checkpoint.CheckpointError("the path is empty: leave it out for the latest checkpoint, or give one")
    path = Path(source).expanduser()
    if is_source(path.as_posix()):
        return imported(path.as_posix())
    is_run = path.is_dir() and not is_sharded_state(path)
    return checkpoint.latest(path) if is_run else checkpoint.named(path)
