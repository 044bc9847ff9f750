"""Checkpoints: what is saved comes back whole, what is damaged or foreign is refused in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from transformer import DecoderOnlyTransformer, ModelConfig, TrainConfig
from transformer.config import DataConfig, OptimizerConfig
from transformer.text import ByteTokenizer, Tokenizer, load_tokenizer, train_bpe
from transformer.training import checkpoint
from transformer.training.checkpoint import CheckpointError
from transformer.training.checkpoint_report import inspect

TEXT = "The cat sat on the mat. The hen sat on the hat. " * 8


def tiny(tokenizer: Tokenizer, **settings: Any) -> tuple[DecoderOnlyTransformer, TrainConfig]:
    shape = {"d_model": 8, "num_heads": 2, "num_layers": 2, "d_ff": 12, "max_seq_len": 16, "dropout": 0.1, **settings}
    config = TrainConfig(
        model=ModelConfig(vocab_size=tokenizer.vocab_size, **shape),
        data=DataConfig("notes/", tokenizer.name, seq_length=16, validation_fraction=0.2),
        optimizer=OptimizerConfig("muon", learning_rate=3e-3),
        seed=5,
    )
    return DecoderOnlyTransformer(config.model), config


def save_tiny(path: Path, tokenizer: Tokenizer | None = None, **settings: Any) -> DecoderOnlyTransformer:
    tokenizer = tokenizer or ByteTokenizer()
    model, config = tiny(tokenizer, **settings)
    contents = checkpoint.model_contents(model, config, tokenizer)
    checkpoint.save(path, {**contents, "step": 7, "epoch": 2, "tokens": 1234})
    return model


def refused(path: Path) -> str:
    """Returns the message with which a file is refused, by both ways of reading it: one line that names the file."""
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_model(path)
    message = str(caught.value)
    assert str(path) in message
    assert len(message.splitlines()) == 1
    assert len(message) < 300 + len(str(path))
    return message


# Round trip


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary", "alibi"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_gives_the_same_logits_and_the_same_text(tmp_path: Path, position: str, tied: bool) -> None:
    model = save_tiny(tmp_path / "m.pt", position=position, tie_embeddings=tied, num_kv_heads=1).eval()
    loaded = checkpoint.load_model(tmp_path / "m.pt")
    tokens = torch.tensor([loaded.tokenizer.encode("The cat sat on")])
    torch.testing.assert_close(loaded.model(tokens), model(tokens), rtol=0, atol=0)
    assert not loaded.model.training
    texts = [
        m.generate(tokens, 30, "multinomial", generator=torch.Generator().manual_seed(3)) for m in (model, loaded.model)
    ]
    assert texts[0].tolist() == texts[1].tolist()


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_an_older_checkpoint_loads_unless_its_positions_mean_something_else_now(tmp_path: Path, position: str) -> None:
    model = save_tiny(tmp_path / "m.pt", position=position)
    torch.save({**torch.load(tmp_path / "m.pt"), "format": 1}, tmp_path / "old.pt")
    if position == "sinusoidal":
        with pytest.raises(CheckpointError, match="is too old: its sinusoidal positions were not scaled"):
            checkpoint.load_model(tmp_path / "old.pt")
    else:
        assert torch.equal(checkpoint.load_model(tmp_path / "old.pt").model.head.weight, model.head.weight)


def test_a_checkpoint_without_the_newer_settings_takes_their_defaults(tmp_path: Path) -> None:
    """The settings of Llama 3, Qwen and OLMo 2 came later than the first checkpoints."""
    model = save_tiny(tmp_path / "m.pt", position="rotary")
    contents = torch.load(tmp_path / "m.pt")
    shape = contents["config"]["model"]
    for name in list(shape)[list(shape).index("rope_theta") + 1 :]:
        del shape[name]
    assert "head_width" not in shape
    assert "rope_scaling" not in shape
    torch.save(contents, tmp_path / "old.pt")
    loaded = checkpoint.load_model(tmp_path / "old.pt")
    assert loaded.config.model == model.config
    tokens = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(loaded.model(tokens), model.eval()(tokens), rtol=0, atol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"head_width": 6, "qk_norm": "head", "parallel_blocks": True, "rotary_fraction": 1 / 3},
        {"qk_norm": "all", "norm_position": "after", "rope_scaling": "llama3:4:0.1:0.3:8", "qkv_bias": False},
    ],
)
def test_the_settings_of_every_family_come_back(tmp_path: Path, settings: dict[str, Any]) -> None:
    model = save_tiny(tmp_path / "m.pt", position="rotary", norm="rmsnorm", **settings).eval()
    loaded = checkpoint.load_model(tmp_path / "m.pt")
    assert loaded.config.model == model.config
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6, 7]])
    torch.testing.assert_close(loaded.model(tokens), model(tokens), rtol=0, atol=0)
    norms = sum(weight.numel() for name, weight in model.named_parameters() if "norm" in name)
    assert next(part for part in inspect(tmp_path / "m.pt").parts if part.name == "norms").parameters == norms


def test_the_whole_config_and_the_numbers_come_back(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    _, config = tiny(tokenizer)
    save_tiny(tmp_path / "m.pt")
    loaded = checkpoint.load_model(str(tmp_path / "m.pt"))  # a path as text works too
    assert loaded.config == config
    assert loaded.path == tmp_path / "m.pt"
    assert (loaded.contents["step"], loaded.contents["epoch"], loaded.contents["tokens"]) == (7, 2, 1234)
    for part in (str(tmp_path / "m.pt"), "byte", "step 7", "1,234 tokens"):
        assert part in loaded.description
    assert "\n" not in loaded.description


def test_a_checkpoint_holds_plain_values_and_tensors_only(tmp_path: Path) -> None:
    save_tiny(tmp_path / "m.pt", train_bpe([TEXT], 270))
    contents = torch.load(tmp_path / "m.pt", weights_only=True)
    kinds = set()

    def walk(value: object) -> None:
        kinds.add(type(value))
        if isinstance(value, dict):
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                walk(inner)

    walk({**contents, "model": dict(contents["model"])})
    assert kinds <= {dict, list, tuple, str, int, float, bool, bytes, type(None), torch.Tensor}


def test_a_trained_vocabulary_travels_inside(tmp_path: Path) -> None:
    tokenizer = train_bpe([TEXT], 272)
    save_tiny(tmp_path / "m.pt", tokenizer)
    again = checkpoint.load_model(tmp_path / "m.pt").tokenizer
    assert (again.name, again.short_name, again.vocab_size, again.eot_id) == ("bpe272", "bpe272", 272, 271)
    text = "The cat fürs hat 低 sat"
    assert again.encode(text) == tokenizer.encode(text)
    assert len(again.encode(TEXT)) < len(TEXT) / 2
    assert again.decode(again.encode(text)) == text


@pytest.mark.parametrize("name", ["byte", "p50k_base"])
def test_an_encoding_travels_by_name(tmp_path: Path, name: str) -> None:
    save_tiny(tmp_path / "m.pt", load_tokenizer(name))
    again = checkpoint.load_model(tmp_path / "m.pt")
    assert again.tokenizer.name == name
    assert again.model.config.vocab_size == again.tokenizer.vocab_size


def test_tied_weights_stay_tied_and_are_stored_once(tmp_path: Path) -> None:
    save_tiny(tmp_path / "tied.pt", d_model=64)
    save_tiny(tmp_path / "untied.pt", d_model=64, tie_embeddings=False)
    tied, untied = (checkpoint.load_model(tmp_path / f"{name}.pt").model for name in ("tied", "untied"))
    assert tied.head.weight is tied.embeddings.token.weight
    assert untied.head.weight is not untied.embeddings.token.weight
    table_bytes = 257 * 64 * 4
    sizes = [(tmp_path / f"{name}.pt").stat().st_size for name in ("untied", "tied")]
    assert sizes[0] - sizes[1] == pytest.approx(table_bytes, rel=0.05)


def test_a_loaded_model_is_in_memory_once(tmp_path: Path) -> None:
    save_tiny(tmp_path / "m.pt")
    loaded = checkpoint.load_model(tmp_path / "m.pt")
    for name, weight in loaded.model.named_parameters():
        assert weight.data_ptr() == loaded.contents["model"][name].data_ptr(), name
        assert weight.requires_grad


def test_weights_of_another_number_format_are_computed_with_in_float32(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "m.pt")
    contents = checkpoint.load(tmp_path / "m.pt")
    halves = {name: weight.bfloat16() for name, weight in contents["model"].items()}
    checkpoint.save(tmp_path / "half.pt", {**contents, "model": halves})
    loaded = checkpoint.load_model(tmp_path / "half.pt")
    for name, weight in model.named_parameters():
        found = loaded.model.get_parameter(name)
        assert found.dtype == torch.float32
        assert torch.equal(found, weight.bfloat16().float())
    assert loaded.model.head.weight is loaded.model.embeddings.token.weight


def test_loading_leaves_the_global_random_state_untouched(tmp_path: Path) -> None:
    save_tiny(tmp_path / "m.pt")
    torch.manual_seed(11)
    before = torch.get_rng_state()
    checkpoint.load_model(tmp_path / "m.pt")
    assert torch.equal(torch.get_rng_state(), before)


# Names and the latest


def touch(path: Path, when: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    os.utime(path, (when, when))
    return path


def test_files_are_named_after_epoch_and_encoding() -> None:
    folder = Path("checkpoints")
    assert checkpoint.epoch_path(folder, 10, load_tokenizer("cl100k_base").short_name).as_posix() == (
        "checkpoints/model_epoch_10_cl100k.pt"
    )
    assert checkpoint.state_path(folder, "p50k").as_posix() == "checkpoints/training_state_p50k.pt"


def test_epochs_are_ordered_by_number(tmp_path: Path) -> None:
    for epoch in (10, 9, 100, 1):
        touch(tmp_path / f"model_epoch_{epoch}_byte.pt", 50)
    touch(tmp_path / "training_state_byte.pt", 50)
    touch(tmp_path / "model_epoch_x_byte.pt", 50)
    touch(tmp_path / ".model_epoch_7_byte.pt.123.tmp", 50)
    assert [path.name for path in checkpoint.epochs(tmp_path)] == [f"model_epoch_{n}_byte.pt" for n in (1, 9, 10, 100)]


def test_epoch_10_is_later_than_epoch_9(tmp_path: Path) -> None:
    """Sorted as text, 9 beats 10; here 10 was even copied before 9."""
    touch(tmp_path / "checkpoints" / "model_epoch_10_cl100k.pt", 100)
    touch(tmp_path / "checkpoints" / "model_epoch_9_cl100k.pt", 101)
    assert checkpoint.latest(tmp_path) == tmp_path / "checkpoints" / "model_epoch_10_cl100k.pt"


def test_the_folder_written_last_wins(tmp_path: Path) -> None:
    old = touch(tmp_path / "checkpoints" / "model_epoch_10_cl100k.pt", 100)
    new = touch(tmp_path / "checkpoints_demo" / "model_epoch_2_bpe2048.pt", 200)
    (tmp_path / "checkpoints_empty").mkdir()
    touch(tmp_path / "elsewhere" / "model_epoch_99_byte.pt", 900)
    assert checkpoint.latest(tmp_path) == new
    assert checkpoint.folders(tmp_path) == [old.parent, new.parent]
    os.utime(old, (300, 300))
    assert checkpoint.latest(tmp_path) == old


def test_the_runs_of_a_sweep_are_found_too(tmp_path: Path) -> None:
    """A sweep's folder holds no checkpoint itself, and without a path nothing in it was found."""
    first = touch(tmp_path / "checkpoints_sweep" / "num_layers=2" / "model_epoch_1_byte.pt", 100)
    second = touch(tmp_path / "checkpoints_sweep" / "num_layers=4" / "model_epoch_1_byte.pt", 300)
    alone = touch(tmp_path / "checkpoints" / "model_epoch_1_byte.pt", 200)
    assert checkpoint.folders(tmp_path) == [first.parent, alone.parent, second.parent]
    assert checkpoint.latest(tmp_path) == second
    assert checkpoint.runs(tmp_path / "checkpoints_sweep") == [first.parent, second.parent]
    assert checkpoint.latest(tmp_path / "checkpoints_sweep") == second
    assert checkpoint.runs(first.parent) == [first.parent]
    assert checkpoint.runs(tmp_path / "nowhere") == []


def test_of_two_encodings_in_one_folder_the_one_written_last_wins(tmp_path: Path) -> None:
    for epoch in (1, 2, 12):
        touch(tmp_path / "checkpoints" / f"model_epoch_{epoch}_cl100k.pt", 100 + epoch)
    for epoch in (1, 3):
        touch(tmp_path / "checkpoints" / f"model_epoch_{epoch}_p50k.pt", 200 + epoch)
    assert checkpoint.latest(tmp_path).name == "model_epoch_3_p50k.pt"


def test_a_folder_of_checkpoints_can_be_named_itself(tmp_path: Path) -> None:
    path = touch(tmp_path / "mine" / "model_epoch_3_byte.pt", 1)
    assert checkpoint.latest(tmp_path / "mine") == path


def test_the_best_checkpoint_is_the_one_that_says_it_scored_best(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    model, config = tiny(tokenizer)
    contents = {**checkpoint.model_contents(model, config, tokenizer), "step": 7, "epoch": 2, "tokens": 1234}
    for epoch, loss in enumerate([2.5, 2.0, float("nan"), 2.2], start=1):
        path = checkpoint.epoch_path(tmp_path / "checkpoints", epoch, "byte")
        checkpoint.save(path, {**contents, "metrics": {"validation_loss": loss}})
    checkpoint.save(checkpoint.epoch_path(tmp_path / "checkpoints", 5, "byte"), contents)  # says nothing
    checkpoint.epoch_path(tmp_path / "checkpoints", 6, "byte").write_bytes(b"damaged")
    best = tmp_path / "checkpoints" / "model_epoch_2_byte.pt"
    assert checkpoint.best(tmp_path) == checkpoint.named(tmp_path / "best") == best
    assert checkpoint.named(tmp_path / "checkpoints" / "best") == best
    assert checkpoint.named(path) == path
    (tmp_path / "best").touch()
    assert checkpoint.named(tmp_path / "best") == tmp_path / "best"
    with pytest.raises(CheckpointError, match="no checkpoint found"):
        checkpoint.named(tmp_path / "elsewhere" / "best")


def test_no_checkpoint_at_all_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"no checkpoint found in {re.escape(str(tmp_path))}: train one first"):
        checkpoint.latest(tmp_path)
    touch(tmp_path / "model_epoch_3_byte.pt", 1)
    with pytest.raises(CheckpointError, match="has a validation loss: name one"):
        checkpoint.best(tmp_path)


# Damaged and foreign files


def test_a_missing_file_names_what_is_beside_it(tmp_path: Path) -> None:
    assert "there is no checkpoint" in refused(tmp_path / "nowhere" / "m.pt")
    touch(tmp_path / "model_epoch_3_byte.pt", 1)
    assert "in that folder: model_epoch_3_byte.pt" in refused(tmp_path / "model_epoch_4_byte.pt")
    assert "there is no checkpoint" in refused(tmp_path)  # a folder is not a file


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "m.pt"
    save_tiny(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path)


def test_a_file_that_lost_its_last_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    save_tiny(path)
    path.write_bytes(path.read_bytes()[:-1])
    refused(path)


def record(path: Path, name: str) -> tuple[int, int]:
    """Returns where in the file an entry of the archive has its bytes, and how many."""
    with zipfile.ZipFile(path) as archive:
        entry = next(info for info in archive.infolist() if info.filename.endswith(name))
        header = path.read_bytes()[entry.header_offset :]
        names, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        return entry.header_offset + 30 + names + extra, entry.file_size


@pytest.mark.parametrize("name", ["/data.pkl", "/data/0", "/data/5"])
def test_a_flipped_bit_is_never_loaded_as_if_nothing_was(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.pt"
    save_tiny(path)
    whole = path.read_bytes()
    start, size = record(path, name)
    for share in (0.0, 0.3, 0.6, 0.99):
        at = start + int(share * size)
        path.write_bytes(whole[:at] + bytes((whole[at] ^ 0x10,)) + whole[at + 1 :])
        refused(path)


def test_a_flipped_bit_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    """Wherever the damage is, the model is either the one that was saved or refused in one line."""
    path = tmp_path / "m.pt"
    model = save_tiny(path, num_layers=1)
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for at in torch.randint(len(whole), (150,), generator=generator).tolist():
        path.write_bytes(whole[:at] + bytes((whole[at] ^ 0x01,)) + whole[at + 1 :])
        with contextlib.suppress(CheckpointError):
            loaded = checkpoint.load_model(path).model.state_dict()
            for name, value in model.state_dict().items():
                assert torch.equal(loaded[name], value), f"byte {at} changed {name}"


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f"touch '{self.proof}'",)


@pytest.mark.parametrize("how", ["pickle", "torch", "torch, old format", "inside a checkpoint"])
def test_a_file_that_would_run_code_is_refused_and_nothing_runs(tmp_path: Path, how: str) -> None:
    path, proof = tmp_path / "m.pt", tmp_path / "proof"
    hostile = Hostile(proof)
    if how == "pickle":
        path.write_bytes(pickle.dumps(hostile))
    elif how == "torch":
        torch.save(hostile, path)
    elif how == "torch, old format":
        torch.save({"model": hostile, "config": {}}, path, _use_new_zipfile_serialization=False)
    else:
        model, config = tiny(ByteTokenizer())
        torch.save({**checkpoint.model_contents(model, config, ByteTokenizer()), "metrics": hostile}, path)
    refused(path)
    assert not proof.exists()
    if how == "pickle":  # the file does what it says, where it is let
        pickle.loads(path.read_bytes())
        assert proof.exists()


def archive() -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as file:
        file.writestr("a.txt", "not a model")
    return memory.getvalue()


FOREIGN = {
    "text": b"The cat sat on the mat.\n" * 50,
    "nothing": b"",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4,
    "zeros": bytes(5000),
    "a zip archive": archive(),
    "a plain pickle": pickle.dumps({"model": {}, "config": {}}),
    "JSON": b'{"model": {}, "config": {}}',
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(FOREIGN[kind])
    refused(path)


def test_noise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    generator = torch.Generator().manual_seed(1)
    for size in (1, 2, 3, 10, 100, 1000, 10_000):
        for _ in range(20):
            noise = torch.randint(256, (size,), dtype=torch.uint8, generator=generator)
            path.write_bytes(bytes(noise.tolist()))
            refused(path)


@pytest.mark.parametrize("contents", [torch.zeros(3), {"state_dict": {}}, [1, 2], "model config", {"model": {}}])
def test_another_file_of_pytorchs_is_refused(tmp_path: Path, contents: object) -> None:
    path = tmp_path / "m.pt"
    torch.save(contents, path)
    assert "not a checkpoint of this project" in refused(path)


def changed(path: Path, **values: Any) -> None:
    contents = {**torch.load(path, weights_only=True), **values}
    torch.save({name: value for name, value in contents.items() if value is not None}, path)


@pytest.mark.parametrize("number", [0, 3, "1", None])
def test_another_format_is_refused_with_both_numbers(tmp_path: Path, number: object) -> None:
    path = tmp_path / "m.pt"
    save_tiny(path)
    changed(path, format=number)
    assert f"has format {number}, this version reads format 2" in refused(path)


@pytest.mark.parametrize(
    "values",
    [
        {"config": {"model": {"d_model": 9}}},
        {"config": {"modle": {}}},
        {"config": []},
        {"config": "tiny"},
        {"config": {"model": "big"}},
        {"model": {}},
        {"model": []},
        {"model": {"head.weight": torch.zeros(2)}},
        {"tokenizer": None},
        {"tokenizer": {"kind": "sanskrit"}},
        {"tokenizer": {"kind": "bpe", "ranks": [b"a"], "pattern": "."}},
        {"tokenizer": {"kind": "named", "name": "nosuch"}},
        {"step": None},
        {"tokens": None},
    ],
    ids=lambda values: next(f"{name}={str(value)[:30]}" for name, value in values.items()),
)
def test_contents_that_do_not_fit_are_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    """A file that loads at all is complete: every command may rely on its step, tokens, config and encoding."""
    path = tmp_path / "m.pt"
    save_tiny(path)
    changed(path, **values)
    refused(path)


# Saving


def test_saving_makes_the_folder_and_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    save_tiny(tmp_path / "a" / "b" / "m.pt")
    save_tiny(tmp_path / "a" / "b" / "m.pt")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["m.pt"]


@pytest.mark.parametrize("failure", ["cannot be pickled", "the disk is full", "Ctrl-C", "no rename"])
def test_a_failure_while_saving_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    path = tmp_path / "m.pt"
    save_tiny(path)
    before = path.read_bytes()
    contents = dict(checkpoint.load(path))
    error: type[BaseException] = OSError
    if failure == "cannot be pickled":
        contents["metrics"] = lambda: None
        error = Exception
    elif failure == "no rename":

        def no_rename(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "replace", no_rename)
    else:
        error = OSError if failure == "the disk is full" else KeyboardInterrupt

        def half(_: object, file: io.BufferedWriter) -> None:
            file.write(before[: len(before) // 2])
            raise error

        monkeypatch.setattr(torch, "save", half)
    with pytest.raises(error):
        checkpoint.save(path, contents)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.pt"]


def test_a_reader_during_a_save_sees_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.pt"
    save_tiny(path)
    old, seen = path.read_bytes(), []
    write = torch.save

    def looked_at(contents: object, file: io.BufferedWriter) -> None:
        write(contents, file)
        file.flush()
        seen.append((path.read_bytes() == old, checkpoint.epochs(tmp_path)))

    monkeypatch.setattr(torch, "save", looked_at)
    save_tiny(path, d_model=16)
    assert seen == [(True, [])]
    assert checkpoint.load_model(path).config.model.d_model == 16


def test_a_config_from_a_checkpoint_equals_the_one_saved_whatever_its_settings(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    model, config = tiny(tokenizer, num_kv_heads=None, norm="rmsnorm", activation="swiglu", bias=False)
    config = dataclasses.replace(config, max_steps=None, epochs=3, checkpoint_dir="elsewhere")
    checkpoint.save(
        tmp_path / "m.pt", {**checkpoint.model_contents(model, config, tokenizer), "step": 0, "epoch": 1, "tokens": 0}
    )
    assert checkpoint.load_model(tmp_path / "m.pt").config == config
