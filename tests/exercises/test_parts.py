"""The reader's parts in a run: the same steps as with this project's own, and an ordinary checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from exercises import solutions
from exercises.solutions import SOLUTIONS
from transformer import DecoderOnlyTransformer
from transformer.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from transformer.data.contracts import TextData
from transformer.data.open import text_data
from transformer.dataset import TokenDocuments
from transformer.exercises.parts import Chosen, use_parts
from transformer.text import load_tokenizer
from transformer.trainer import Trainer
from transformer.training import checkpoint

Trainers = Callable[..., Trainer]
USED = ["attention", "causal_mask", "heads", "positions", "block", "loss", "sampling", "accumulation", "schedule"]


@pytest.fixture(scope="module")
def text() -> TextData:
    tokenizer, settings = load_tokenizer("byte"), DataConfig(seq_length=8)
    documents = TokenDocuments([tokenizer.encode("to be or not to be, " * 20)], tokenizer.eot_id)
    return text_data(settings, tokenizer, documents, documents.num_tokens, iter(documents))


@pytest.fixture
def trainer_of(text: TextData, tmp_path: Path) -> Trainers:
    """trainer_of(position="alibi") is the trainer of a tiny run of three steps with this setting of the model."""

    def make(schedule: str = "cosine", checkpointing: bool = False, **settings: Any) -> Trainer:
        shape = {"vocab_size": 257, "d_model": 16, "num_heads": 2, "num_layers": 2, "d_ff": 32, "max_seq_len": 8,
                 "dropout": 0.0, **settings}  # fmt: skip
        return Trainer(
            TrainConfig(
                ModelConfig(**shape), DataConfig(seq_length=8), OptimizerConfig(schedule=schedule, learning_rate=0.01),  # type: ignore[arg-type]
                batch_size=2, accumulation_steps=2, max_steps=3, device="cpu", precision="float32", trackers=(),
                checkpoint_dir=str(tmp_path / "run"), activation_checkpointing=checkpointing,
            ),
            text,
        )  # fmt: skip

    return make


def parts(trainer: Trainer, names: Iterable[str] = SOLUTIONS, **changed: SimpleNamespace) -> Chosen:
    return use_parts(trainer, {**{name: SOLUTIONS[name] for name in names}, **changed})  # type: ignore[arg-type]


def losses(trainer: Trainer) -> list[float]:
    found = []
    for _ in range(3):
        trainer.train_step()
        found.append(trainer.report().loss)
    return [*found, trainer.evaluate().loss]


@pytest.mark.parametrize(
    "settings",
    [
        {"position": "sinusoidal"},
        {"position": "rotary", "rope_theta": 100.0, "num_kv_heads": 1, "qk_norm": "head", "norm": "rmsnorm"},
    ],
)
def test_correct_parts_take_the_same_steps(settings: dict[str, Any], trainer_of: Trainers) -> None:
    trainer = trainer_of(**settings)
    chosen = parts(trainer)
    assert chosen.used == USED
    assert chosen.unused == dict.fromkeys(("cache", "perplexity", "induction"), "not a part of training")
    assert losses(trainer) == pytest.approx(losses(trainer_of(**settings)), rel=1e-5)


@pytest.mark.parametrize(
    ("exercise", "function", "change"),
    [
        ("attention", "attention", lambda q, k, v, mask: v.mean(2, keepdim=True).expand_as(q) + 0 * q),
        ("causal_mask", "causal_mask", lambda t, s: torch.ones(t, s, dtype=torch.bool)),
        ("heads", "split_heads", lambda x, heads: x.unflatten(-1, (-1, heads)).permute(0, 3, 1, 2)),
        ("heads", "merge_heads", lambda x: x.flip(1).transpose(1, 2).flatten(2)),
        ("positions", "rotate", lambda x, positions, theta: x),
        ("block", "block", lambda x, attention, network, norm, norm2: x + attention(norm(x))),
        ("block", "layer_norm", lambda x, weight, bias, eps: 3 * x),
        ("loss", "next_token_loss", lambda h, w, t: (2 * solutions.next_token_loss(h, w, t)[0], len(t) + 0 * t[0])),
        ("accumulation", "accumulate_gradients", lambda o, b, d: solutions.accumulate_gradients(o, b, 9 * d)),
        ("schedule", "lr_scale", lambda step, total, warmup, low: 0.01),
    ],
)  # fmt: skip
def test_the_readers_version_is_what_trains(
    exercise: str, function: str, change: Callable[..., Any], trainer_of: Trainers
) -> None:
    trainer = trainer_of(position="rotary")
    changed = SimpleNamespace(**{**vars(SOLUTIONS[exercise]), function: change})
    assert parts(trainer, [], **{exercise: changed}).used == [exercise]
    assert losses(trainer) != pytest.approx(losses(trainer_of(position="rotary")), rel=1e-6)


def test_the_checkpoint_is_an_ordinary_one(trainer_of: Trainers) -> None:
    trainer = trainer_of()
    parts(trainer)
    trainer.fit()
    path = checkpoint.epoch_path(trainer.directory, trainer.epoch, "byte")
    loaded = checkpoint.load_model(path, torch.device("cpu"))
    assert type(loaded.model).__mro__[-3:] == DecoderOnlyTransformer.__mro__[-3:]
    tokens = torch.tensor([[72, 105, 33]])
    torch.testing.assert_close(loaded.model(tokens), trainer.model.eval()(tokens), rtol=1e-5, atol=1e-5)
    again = trainer_of()
    again.resume(checkpoint.state_path(trainer.directory, "byte"))
    assert again.step == 3


@pytest.mark.parametrize("position", ["rotary", "sinusoidal"])
def test_positions_that_are_not_written_are_not_used(position: str, trainer_of: Trainers) -> None:
    def unwritten(*_: object, **__: object) -> None:
        raise NotImplementedError

    nothing = SimpleNamespace(rotate=unwritten, sinusoidal_table=unwritten)
    chosen = parts(trainer_of(position=position), [], positions=nothing)
    assert chosen.unused == {"positions": f"the one for --position {position} is not written"}


def test_sample_texts_use_the_readers_filters(trainer_of: Trainers) -> None:
    trainer = trainer_of()
    only_token_7 = SimpleNamespace(
        filter_logits=lambda logits, t, k, p: torch.full_like(logits, -torch.inf).index_fill(-1, torch.tensor([7]), 0.0)
    )
    parts(trainer, [], sampling=only_token_7)
    generated = trainer.model.generate(torch.tensor([[1]]), max_new_tokens=3, sampling_strategy="top_p")
    assert generated.tolist() == [[1, 7, 7, 7]]
    greedy = trainer.model.generate(torch.tensor([[1]]), max_new_tokens=3)
    assert greedy.tolist() == trainer_of().model.generate(torch.tensor([[1]]), max_new_tokens=3).tolist()


@pytest.mark.parametrize(
    ("settings", "reasons"),
    [
        ({"position": "alibi"}, {"attention": "with ALiBi", "causal_mask": "with ALiBi"}),
        ({"norm_position": "after"}, {"block": "another kind"}),
        ({"parallel_blocks": True}, {"block": "another kind"}),
        ({"schedule": "wsd"}, {"schedule": "--schedule wsd"}),
        ({"checkpointing": True}, {"block": "--activation-checkpointing"}),
    ],
)
def test_a_part_that_does_not_fit_the_run_is_named(
    settings: dict[str, Any], reasons: dict[str, str], trainer_of: Trainers
) -> None:
    trainer = trainer_of(**settings)
    chosen = parts(trainer, USED)
    reasons = {"positions": "the model has", **reasons}
    assert chosen.used == [name for name in USED if name not in reasons]
    assert {name for name in reasons if reasons[name] in chosen.unused[name]} == set(reasons)
    assert losses(trainer) == pytest.approx(losses(trainer_of(**settings)), rel=1e-5)
