"""Damaged and odd texts on this machine: plain, JSONL and parquet, read by the library and by `evaluate`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fuzzing import HOSTILE, altered, call, check_shown, damaged, odd_value, run_cases
from transformer import DecoderOnlyTransformer
from transformer.config import DataConfig, ModelConfig, TrainConfig
from transformer.text import load_tokenizer, read_documents
from transformer.training import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ROWS = [{"text": f"Row {n}: the hen has {n} eggs, née hen. " * 4, "id": n} for n in range(20)]
COMPRESSIONS = ("none", "snappy", "zstd", "gzip")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with m.pt, a model of bytes with fresh weights."""
    folder = tmp_path_factory.mktemp("texts")
    shape = ModelConfig(257, d_model=8, num_heads=1, num_layers=1, d_ff=8, max_seq_len=16, dropout=0.0)
    config = TrainConfig(shape, DataConfig("gone.txt", "byte", seq_length=16))
    contents = checkpoint.model_contents(DecoderOnlyTransformer(shape), config, load_tokenizer("byte"))
    checkpoint.save(folder / "m.pt", {**contents, "step": 1, "tokens": 1})
    return folder


def parquet(chance: Random, values: list[Any]) -> bytes:
    """A parquet file of the values, as strings or as what they are."""
    file = io.BytesIO()
    kind = chance.choice([pa.string(), pa.large_string(), pa.binary()])
    raw = [value if isinstance(value, str | None) else str(value) for value in values]
    column = pa.array([None if value is None else value.encode("utf-8", "surrogatepass") for value in raw], pa.binary())
    if kind != pa.binary():  # a cast does not check the bytes here, as some writers do not
        column = column.cast(kind, safe=False) if all(map(is_utf8, raw)) else unchecked(column)
    table = pa.table({chance.choice(["text"] * 9 + [HOSTILE]): column})
    pq.write_table(table, file, row_group_size=chance.choice([1, 7, 1000]), compression=chance.choice(COMPRESSIONS))
    return file.getvalue()


def is_utf8(text: str | None) -> bool:
    return text is None or text.encode(errors="replace").decode() == text


def unchecked(column: pa.Array) -> pa.Array:
    """The bytes as strings, whether they are UTF-8 or not."""
    return pa.Array.from_buffers(pa.string(), len(column), column.buffers(), column.null_count)


def content(chance: Random) -> tuple[str, bytes]:
    """The name and the bytes of a file that is meant to be read."""
    kind = chance.choice([".txt", ".md", ".jsonl", ".jsonl", ".parquet", ".parquet"])
    rows: list[Any] = [dict(row) for row in ROWS]
    for _ in range(chance.choice([0, 1, 3])):
        at = chance.randrange(len(rows))
        rows[at] = altered(rows[at], chance, odd_value)
    texts = [row.get("text") if isinstance(row, dict) else row for row in rows]
    if kind == ".parquet":
        data = parquet(chance, texts)
    elif kind == ".jsonl":
        data = "".join(json.dumps(row, default=str) + "\n" for row in rows).encode("utf-8", "surrogatepass")
    else:
        data = "\n\n".join(map(str, texts)).encode("utf-8", "surrogatepass")
    return f"{chance.choice(['a', HOSTILE.replace(chr(7), ''), 'ü b'])}{kind}", data


def test_a_text_is_read_or_refused_in_one_line(model: Path) -> None:
    def read(name: str) -> None:
        message = ""
        try:
            for document in read_documents(Path(name)):
                assert isinstance(document, str)
        except ValueError as error:
            message = str(error)
        assert len(message) < 3_000, message[:3_000]

    def evaluate(name: str) -> None:
        call("evaluate", "--checkpoint", "m.pt", "--text-file", name, "--max-tokens", "60")

    def case(chance: Random) -> None:
        name, data = content(chance)
        if chance.random() < 0.6:
            data = damaged(data, chance)
        Path(name).write_bytes(data)
        (evaluate if chance.random() < 0.5 else read)(name)
        Path(name).unlink()

    def plain() -> None:
        for kind in (".jsonl", ".parquet"):
            data = parquet(Random(0), [row["text"] for row in ROWS])
            Path(f"a{kind}").write_bytes(data if kind == ".parquet" else json.dumps(ROWS[0]).encode())
            evaluate(f"a{kind}")
            read(f"a{kind}")

    torch.manual_seed(0)
    check_shown("")
    run_cases(model, 800, case, plain)
