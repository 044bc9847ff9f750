"""`compare`: the same documents for all, what is called best, changes by epoch, and files that are of no use.

The models here know how often each token comes and nothing else, so that what they score follows from counting.
"""

from __future__ import annotations

import json
import math
import random
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from transformer import DecoderOnlyTransformer
from transformer.config import DataConfig, ModelConfig, TrainConfig
from transformer.evaluation.ranking import Measured, rank
from transformer.evaluation.statistics import DocumentScores
from transformer.text import Tokenizer, load_tokenizer, split_documents, train_bpe
from transformer.training import checkpoint

Command = Callable[..., Any]
BYTE = load_tokenizer("byte")


def pages(seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    return [f"Page {n}: " + " ".join(chance.choices(["red", "hens", "run", "up"], k=8 + n % 5)) for n in range(240)]


@pytest.fixture
def text(tmp_path: Path) -> list[str]:
    """pages.jsonl in tmp_path; returns its held-out documents."""
    lines = "".join(json.dumps({"text": page}) + "\n" for page in pages())
    (tmp_path / "pages.jsonl").write_text(lines, encoding="utf-8")
    return split_documents(pages())[1]


def frequencies(documents: list[str], tokenizer: Tokenizer) -> torch.Tensor:
    """The logits of a model that knows how often each token comes in the documents, V."""
    tokens = [token for document in documents for token in [*tokenizer.encode(document), tokenizer.eot_id]]
    counts = torch.bincount(torch.tensor(tokens), minlength=tokenizer.vocab_size)
    return (counts + 0.5).log()


def leave(
    path: Path,
    logits: torch.Tensor,
    tokenizer: Tokenizer = BYTE,
    tokens: int = 100,
    epoch: int = 1,
    dataset: str = "pages.jsonl",
    **data: Any,
) -> Path:
    """Writes a checkpoint of a model that gives these logits to whatever comes."""
    shape = ModelConfig(tokenizer.vocab_size, 4, 1, 1, 4, 16, dropout=0.0, tie_embeddings=False)
    model = DecoderOnlyTransformer(shape)
    with torch.no_grad():
        model.final_norm.weight.zero_()
        model.final_norm.bias.copy_(torch.tensor([1.0, 0, 0, 0]))
        model.head.weight[:, 0] = logits
    config = TrainConfig(shape, DataConfig(dataset, tokenizer.name, 16, **data))
    contents = checkpoint.model_contents(model, config, tokenizer)
    checkpoint.save(path, {**contents, "step": epoch, "epoch": epoch, "tokens": tokens})
    return path


def uniform(tokenizer: Tokenizer = BYTE) -> torch.Tensor:
    return torch.zeros(tokenizer.vocab_size)


def compared(command: Command, *arguments: str) -> dict[str, Any]:
    outcome = command("compare", *arguments, "--json")
    assert outcome.status == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def by_name(ranking: Mapping[str, Any]) -> dict[str, Any]:
    return {row["checkpoint"]: row for row in ranking["checkpoints"]}


def test_the_better_one_is_called_best_with_the_numbers_that_counting_gives(
    command: Command, tmp_path: Path, text: list[str]
) -> None:
    leave(tmp_path / "checkpoints_a" / "model_epoch_1_byte.pt", uniform())
    counted = frequencies(pages(), BYTE)
    leave(tmp_path / "checkpoints_b" / "model_epoch_1_byte.pt", counted)
    (ranking,) = compared(command)["rankings"]
    size = sum(len(page) for page in text)
    assert (ranking["documents"], ranking["text_bytes"]) == (len(text), size)
    first, second = ranking["checkpoints"]
    assert ranking["best"] == first["checkpoint"] == str(Path("checkpoints_b/model_epoch_1_byte.pt"))
    assert second["bits_per_byte"] == pytest.approx((size + len(text)) * math.log2(257) / size, rel=1e-6)
    surprise = -counted.double().log_softmax(0)
    nats = sum(float(surprise[token]) for page in text for token in [*BYTE.encode(page), 256])
    assert first["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-6)
    assert second["behind"]["bits_per_byte"] == pytest.approx(second["bits_per_byte"] - first["bits_per_byte"])
    assert 0 < second["behind"]["error"] < 0.1
    outcome = command("compare")
    assert "BEST: checkpoints_b" in outcome.out
    assert re.search(r"│ +1 │ checkpoints_b\S+ +│ byte", outcome.out)
    assert "1=" not in outcome.out


def test_what_differs_by_luck_alone_is_not_called_best(command: Command, tmp_path: Path, text: list[str]) -> None:
    logits = frequencies(pages(), BYTE)
    letters = torch.zeros(257)
    letters[ord("r")], letters[ord("u")] = 1e-3, -1e-3
    for name, change in {"a": 0.0, "b": 1.0, "c": -1.0}.items():
        leave(tmp_path / f"checkpoints_{name}" / "model_epoch_1_byte.pt", logits + change * letters)
    leave(tmp_path / "checkpoints_far" / "model_epoch_1_byte.pt", uniform())
    outcome = command("compare")
    assert "BEST" not in outcome.out
    assert len(re.findall("│ 1= │", outcome.out)) == 3
    assert re.search(
        r"No checkpoint is called best: \S+ is not significantly better than \S+, \S+ \(1=: within 2\.\d", outcome.out
    )
    assert "checkpoints_far" not in outcome.out.split("not significantly better")[1].split("(1=")[0]


def test_encodings_of_different_sizes_read_the_same_documents(
    command: Command, tmp_path: Path, text: list[str]
) -> None:
    """A limit in tokens ends at another document in each encoding."""
    bpe = train_bpe(pages(), 300)
    limit = 400
    leave(tmp_path / "checkpoints_a" / "model_epoch_1_byte.pt", uniform(), validation_tokens=limit)
    leave(tmp_path / "checkpoints_b" / "model_epoch_1_bpe300.pt", uniform(bpe), bpe, validation_tokens=limit // 2)
    (ranking,) = compared(command)["rankings"]
    whole, left = [], limit
    while (left := left - len(text[len(whole)].encode()) - 1) >= 0:
        whole.append(text[len(whole)])
    size = sum(len(page) for page in whole)
    assert (ranking["documents"], ranking["text_bytes"]) == (len(whole), size)
    for row in ranking["checkpoints"]:
        tokenizer = BYTE if row["encoding"] == "byte" else bpe
        tokens = sum(len(tokenizer.encode(page)) + 1 for page in whole)
        assert row["tokens"] == tokens
        assert row["bits_per_byte"] == pytest.approx(tokens * math.log2(tokenizer.vocab_size) / size, rel=1e-6)
        assert row["perplexity"] == pytest.approx(tokenizer.vocab_size, rel=1e-5)


def test_a_limit_in_which_no_document_fits_every_encoding_is_said(
    command: Command, tmp_path: Path, text: list[str]
) -> None:
    bpe = train_bpe(pages(), 300)
    leave(tmp_path / "checkpoints_a" / "model_epoch_1_byte.pt", uniform())
    leave(tmp_path / "checkpoints_b" / "model_epoch_1_bpe300.pt", uniform(bpe), bpe)
    outcome = command("compare", "--max-tokens", "5")
    assert outcome.status == 2
    assert len(outcome.err.splitlines()) == 1
    assert "no document fits --max-tokens 5 in every encoding: a larger one compares them" in outcome.err


def test_each_text_is_encoded_once_for_each_encoding(
    command: Command, tmp_path: Path, text: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformer.cli.evaluate import measure

    opened: Counter[tuple[str, str]] = Counter()
    real = measure.held_out_documents

    def counting(config: DataConfig, tokenizer: Tokenizer, *rest: Any) -> Any:
        opened[config.dataset, tokenizer.name] += 1
        return real(config, tokenizer, *rest)

    monkeypatch.setattr(measure, "held_out_documents", counting)
    (tmp_path / "other.jsonl").write_bytes((tmp_path / "pages.jsonl").read_bytes())
    for epoch in (1, 2, 3):
        leave(tmp_path / "checkpoints" / f"model_epoch_{epoch}_byte.pt", uniform(), epoch=epoch)
    leave(tmp_path / "checkpoints_b" / "model_epoch_1_byte.pt", uniform(), dataset="other.jsonl")
    rankings = compared(command)["rankings"]
    assert sorted(len(ranking["checkpoints"]) for ranking in rankings) == [1, 3]
    assert set(opened.values()) == {1}
    assert len(opened) == 2


def test_a_change_is_since_the_epoch_before(command: Command, tmp_path: Path, text: list[str]) -> None:
    counted = frequencies(pages(), BYTE)
    for epoch, share in ((1, 0.0), (2, 0.5), (5, 1.0)):
        path = tmp_path / "run" / f"model_epoch_{epoch}_byte.pt"
        leave(path, share * counted, epoch=epoch, tokens=1000 * epoch)
    rows = by_name(compared(command, "run")["rankings"][0])
    scores = {name: row["bits_per_byte"] for name, row in rows.items()}
    one, two, five = (str(Path(f"run/model_epoch_{epoch}_byte.pt")) for epoch in (1, 2, 5))
    assert rows[one]["change"] is None
    assert rows[two]["change"]["since"] == one
    assert rows[two]["change"]["bits_per_byte"] == pytest.approx(scores[two] - scores[one])
    assert rows[five]["change"]["since"] == two
    assert rows[five]["change"]["error"] > 0
    out = command("compare", "run").out
    assert re.search(rf"│ +{scores[five] - scores[two]:.4f} ± \S+ \(epoch 2\) │", out)
    assert re.search(rf"│ +{scores[two] - scores[one]:.4f} ± \S+ │", out)


def test_runs_sweeps_files_and_names_are_all_understood(command: Command, tmp_path: Path, text: list[str]) -> None:
    sweep, run = tmp_path / "checkpoints_sweep", tmp_path / "run"
    found = [
        leave(sweep / "num_layers=2" / "model_epoch_1_byte.pt", uniform()),
        leave(sweep / "num_layers=4" / "model_epoch_1_byte.pt", uniform()),
        leave(run / "model_epoch_1_byte.pt", uniform()),
    ]
    names = [str(path.relative_to(tmp_path)) for path in found]
    for arguments, wanted in {
        (): names[:2],
        ("checkpoints_sweep",): names[:2],
        ("run", "checkpoints_sweep/num_layers=4"): names[1:],
        ("--directory", "run"): names[2:],
        ("run", "--directory", "checkpoints_sweep"): names,
        (names[2], names[2], "run"): names[2:],
    }.items():
        (ranking,) = compared(command, *arguments)["rankings"]
        assert sorted(by_name(ranking)) == sorted(wanted), arguments


def flip_a_weight(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        largest = archive.read(max(archive.infolist(), key=lambda entry: entry.file_size))
    data = bytearray(path.read_bytes())
    data[data.index(largest) + len(largest) // 2] ^= 1
    path.write_bytes(data)


def test_broken_files_are_listed_and_the_rest_is_ranked(command: Command, tmp_path: Path, text: list[str]) -> None:
    folder = tmp_path / "checkpoints"
    leave(folder / "model_epoch_1_byte.pt", uniform())
    (folder / "model_epoch_2_byte.pt").write_bytes(b"PK junk")
    torch.save({"state_dict": {}}, folder / "model_epoch_3_byte.pt")
    leave(folder / "model_epoch_4_byte.pt", uniform() + math.nan)
    flip_a_weight(leave(folder / "model_epoch_5_byte.pt", uniform()))
    leave(folder / "model_epoch_6_byte.pt", uniform(), dataset="gone.txt")
    outcome = command("compare")
    assert outcome.status == 0, outcome.err
    assert outcome.err == ""
    left = re.findall(r"^left out: (.*)", outcome.out, re.MULTILINE)
    for part in (
        "model_epoch_2_byte.pt is damaged",
        "model_epoch_3_byte.pt is a file of PyTorch's, but not a checkpoint of this project",
        "model_epoch_4_byte.pt is not valid: weights that hold nan or infinite numbers",
        "has another checksum",
        "model_epoch_6_byte.pt: gone.txt does not exist",
    ):
        assert any(part in line for line in left), part
    assert len(left) == 5
    assert "There is only one checkpoint" in outcome.out
    assert compared(command)["left_out"] == left


def test_where_nothing_can_be_measured_it_is_an_error(command: Command, tmp_path: Path) -> None:
    leave(tmp_path / "checkpoints" / "model_epoch_1_byte.pt", uniform(), dataset="gone.txt")
    outcome = command("compare")
    assert (outcome.status, outcome.out) == (2, "")
    assert "no checkpoint could be evaluated: " in outcome.err
    assert "gone.txt does not exist" in outcome.err
    assert not (tmp_path / "runs").exists()


def test_it_leaves_a_picture(command: Command, tmp_path: Path, text: list[str]) -> None:
    leave(tmp_path / "checkpoints" / "model_epoch_1_byte.pt", uniform())
    outcome = command("compare")
    pictures = [Path("runs/compare/compare.png"), Path("runs/compare/compare.svg")]
    assert outcome.out.splitlines()[-2:] == list(map(str, pictures))
    assert (tmp_path / pictures[0]).read_bytes().startswith(b"\x89PNG")
    assert compared(command, "--out", "there/one.svg")["pictures"] == [str(Path("there/one.svg"))]
    assert "bits per byte" in (tmp_path / "there" / "one.svg").read_text(encoding="utf-8")


def test_a_narrow_terminal_leaves_columns_out_before_it_breaks_numbers() -> None:
    from transformer.cli.compare.table import ranking_table

    sizes = torch.tensor([100, 200])
    scores = DocumentScores(sizes.double(), sizes, sizes)
    ranking = rank("text", [Measured(Path(f"run{n}/m.pt"), "byte", 1, 10, scores) for n in range(2)])
    headings = {width: [column.header for column in ranking_table(ranking, width).columns] for width in (80, 140)}
    assert {"encoding", "perplexity", "tokens seen"} <= set(headings[140])
    assert headings[80] == ["", "checkpoint", "bits per byte", "behind first", "perplexity", "tokens seen"]


def test_a_run_without_a_checkpoint_is_left_out_with_a_note(command: Command, tmp_path: Path, text: list[str]) -> None:
    leave(tmp_path / "checkpoints" / "model_epoch_1_byte.pt", uniform())
    (tmp_path / "checkpoints_new").mkdir()
    (tmp_path / "checkpoints_new" / "metrics.jsonl").touch()
    assert compared(command)["left_out"] == ["no checkpoint found in checkpoints_new: the first one follows an epoch"]
    (note,) = compared(command, "checkpoints", "checkpoints_new")["left_out"]
    assert note.startswith("no checkpoint found in checkpoints_new: ")
    assert "there is no checkpoint or folder typo" in command("compare", "checkpoints", "typo").err


def test_the_star_of_the_best_has_the_colour_of_its_line() -> None:
    """A black star hid the winner's colour."""
    from transformer.reporting.ranking_plot import draw

    sizes = torch.full((50,), 100)
    nats = torch.linspace(1, 2, 50)
    measured = [
        Measured(Path(f"r{n}/m.pt"), "byte", 1, 10, DocumentScores(nats.double() * n, sizes, sizes)) for n in (1, 3)
    ]
    ranking = rank("text", measured)
    assert ranking.best is not None
    axes = draw([ranking]).axes[0]
    (star,) = (line for line in axes.lines if line.get_marker() == "*")
    assert star.get_color() == axes.containers[0].lines[0].get_color()


def test_all_can_be_compared_on_one_text(command: Command, tmp_path: Path, text: list[str]) -> None:
    (tmp_path / "other.jsonl").write_bytes((tmp_path / "pages.jsonl").read_bytes())
    (tmp_path / "notes.md").write_text("Red hens run up.", encoding="utf-8")
    leave(tmp_path / "checkpoints_a" / "model_epoch_1_byte.pt", uniform())
    leave(tmp_path / "checkpoints_b" / "model_epoch_1_byte.pt", uniform(), dataset="other.jsonl")
    assert len(compared(command)["rankings"]) == 2
    (ranking,) = compared(command, "--text-file", "notes.md")["rankings"]
    assert (ranking["text"], ranking["documents"], ranking["text_bytes"]) == ("notes.md", 1, 16)
    assert len(ranking["checkpoints"]) == 2
    assert "one document is not enough" in command("compare", "--text-file", "notes.md").out
    (ranking,) = compared(command, "--dataset", "pages.jsonl")["rankings"]
    assert (ranking["text"], ranking["documents"]) == ("held-out text of pages.jsonl", len(text))


def test_a_stride_beyond_a_models_context_leaves_that_model_out(
    command: Command, tmp_path: Path, text: list[str]
) -> None:
    leave(tmp_path / "checkpoints" / "model_epoch_1_byte.pt", uniform())
    assert compared(command, "--stride", "1")["rankings"]
    outcome = command("compare", "--stride", "17")
    assert outcome.status == 2
    assert "model_epoch_1_byte.pt: stride=17 must be from 1 to the context of 16" in outcome.err


SLIPS = {
    "a folder without a checkpoint": (("empty",), "no checkpoint found in empty"),
    "no folder at all": (("nowhere",), "there is no checkpoint or folder nowhere"),
    "no best": (("nowhere/best",), "no checkpoint found"),
    "two texts": (("--dataset", "shakespeare", "--text-file", "a.txt"), "give one of them"),
    "no tokens": (("--max-tokens", "0"), "max_tokens=0 must be at least 1"),
    "no kind of picture": (("--out", "picture"), "end it in .png, .svg, .pdf"),
    "another kind of picture": (("--out", "picture.txt"), "end it in .png, .svg, .pdf"),
    "a flag misspelt": (("--strid", "4"), "did you mean --stride?"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_one_clear_line(command: Command, tmp_path: Path, slip: str) -> None:
    (tmp_path / "empty").mkdir()
    arguments, said = SLIPS[slip]
    outcome = command("compare", *arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert len(outcome.err.splitlines()) == 1
    assert said in outcome.err
