"""Damage anywhere in a checkpoint: it is refused in one line that names the file, or nothing in it has changed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from transformer import DecoderOnlyTransformer, ModelConfig, TrainConfig
from transformer.text import ByteTokenizer
from transformer.training import checkpoint
from transformer.training.checkpoint import CheckpointError

TRIES = 60


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Any]]:
    """A checkpoint with an optimizer's state, as bytes and as what is in it."""
    config = TrainConfig(ModelConfig(257, 4, 1, 1, 8, 8))
    model = DecoderOnlyTransformer(config.model)
    averages = {number: {"step": 7.0, "exp_avg": torch.randn_like(p)} for number, p in enumerate(model.parameters())}
    contents = checkpoint.model_contents(model, config, ByteTokenizer())
    path = tmp_path_factory.mktemp("whole") / "m.pt"
    numbers = {"step": 7, "epoch": 2, "tokens": 1234, "random": torch.get_rng_state()}
    checkpoint.save(path, {**contents, **numbers, "optimizers": [{"state": averages}]})
    return path.read_bytes(), checkpoint.load(path)


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def equal(one: object, other: object) -> bool:
    """Bit for bit, in nested dicts and lists of tensors and values."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and one == other


def one_bit_flipped(data: bytes, chance: Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes((data[at] ^ (1 << chance.randrange(8)),)) + data[at + 1 :]


def a_block_zeroed(data: bytes, chance: Random) -> bytes:
    """As a disk may leave it that lost power before it wrote the block."""
    at = chance.randrange(0, len(data), 4096)
    return data[:at] + bytes(min(4096, len(data) - at)) + data[at + 4096 :]


def two_blocks_swapped(data: bytes, chance: Random) -> bytes:
    first, second = sorted(chance.sample(range(len(data) // 512), 2))
    one, other = (data[512 * block : 512 * block + 512] for block in (first, second))
    return data[: 512 * first] + other + data[512 * first + 512 : 512 * second] + one + data[512 * second + 512 :]


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, whole: tuple[bytes, dict[str, Any]]) -> None:
    data, _ = whole
    path, chance = tmp_path / "m.pt", Random(0)
    for length in [chance.randrange(len(data)) for _ in range(TRIES)] + [len(data) - n for n in range(1, 30)]:
        path.write_bytes(data[:length])
        refused(path)


@pytest.mark.parametrize("damage", [one_bit_flipped, a_block_zeroed, two_blocks_swapped])
def test_damage_anywhere_is_refused_or_has_changed_nothing(
    tmp_path: Path, whole: tuple[bytes, dict[str, Any]], damage: Callable[[bytes, Random], bytes]
) -> None:
    """Changed nothing: between the entries of the archive there is padding."""
    data, contents = whole
    path, chance, refusals = tmp_path / "m.pt", Random(1), 0
    for number in range(TRIES):
        path.write_bytes(damage(data, chance))
        try:
            found = checkpoint.load(path)
        except CheckpointError:
            refused(path)
            refusals += 1
        else:
            assert equal(found, contents), f"{damage.__name__}, try {number}"
    assert refusals > TRIES / 4


def test_an_archive_that_would_fill_the_memory_is_refused_unread(tmp_path: Path) -> None:
    """A few kilobytes that unpack to gigabytes; PyTorch packs nothing, so a file of its own is never that small."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/version", "3\n")
        with archive.open("m/data.pkl", "w", force_zip64=True) as entry:
            for _ in range(64):
                entry.write(bytes(1 << 20))
    path = tmp_path / "m.pt"
    path.write_bytes(memory.getvalue())
    assert path.stat().st_size < 1 << 17
    assert "it unpacks to more than its size" in refused(path)


def test_a_folder_in_a_checkpoints_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.pt").mkdir()
    assert "there is no checkpoint" in refused(tmp_path / "m.pt")


def test_the_file_of_a_killed_process_is_removed_by_the_next_save_and_that_of_a_live_one_is_not(tmp_path: Path) -> None:
    """Each kill during a save left a file of the state's size; removing it once removed a live process's as well."""
    with subprocess.Popen([sys.executable, "-c", "pass"]) as finished:
        pass
    path, other = tmp_path / "model_epoch_1_byte.pt", tmp_path / f".model_epoch_11_byte.pt.{finished.pid}.tmp"
    killed, live = (tmp_path / f".{path.name}.{pid}.tmp" for pid in (finished.pid, os.getppid()))
    for left in (killed, live, other):
        left.write_bytes(b"half")
    os.utime(killed, (0, 0))  # on Windows the age decides
    checkpoint.save(path, {"step": 1})
    assert set(tmp_path.iterdir()) == {path, live, other}
