"""Commands in surroundings that people reported: leftover variables, a deleted folder, pasted dashes, odd proxies.

The numbers name the public report whose kind is tried here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transformer.cli.sweep.grid import free_name
from transformer.data.hub.errors import HubError, explained
from transformer.distributed.processes import Dist
from transformer.reporting.metrics_log import METRICS_FILE, read_metrics

pytestmark = pytest.mark.usefixtures("plain_pictures")

Command = Callable[..., Any]
RUN = ("train", "--preset", "tiny", "--device", "cpu", "--num-layers", "1", "--batch-size", "2", "--trackers")
RUN += ("--validation-tokens", "300", "--sample-tokens", "0", "--checkpoint-dir", "run")
TEXT = "To be, or not to be, that is the question.\n" * 60


@pytest.mark.parametrize("leftover", [{"WORLD_SIZE": "4"}, {"WORLD_SIZE": "4", "RANK": "1"}, {"LOCAL_RANK": "1"}])
def test_variables_of_a_cluster_do_not_silence_a_command(
    command: Command, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, leftover: dict[str, str]
) -> None:
    # pytorch#14446, mmaction#181: a job's containers have WORLD_SIZE, and here inspect printed nothing, with status 0.
    for name, value in leftover.items():
        monkeypatch.setenv(name, value)
    assert "parameters" in command("inspect", str(tiny_checkpoint)).out
    assert command("inspect", "--flag").err.startswith("error: there is no option --flag")


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT"])
def test_a_variable_that_is_no_number_is_named(name: str) -> None:
    whole = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    with pytest.raises(ValueError, match=f"{name}='x' is not a whole number: start with torchrun"):
        Dist.from_environment({**whole, name: "x"})


def test_a_deleted_current_folder_is_reported_in_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    found = command(*RUN, "--max-steps", "2")
    assert (found.status, found.err) == (
        2, "error: the current folder has been deleted: change to one that exists\n",
    )  # fmt: skip


@pytest.mark.parametrize("dash", "–—−")
def test_a_pasted_dash_is_explained(command: Command, dash: str) -> None:
    # molSimplify#516, clamp#33: text processors turn -- into one long dash.
    assert "options begin with two ASCII hyphens" in command(*RUN, f"{dash}seed", "3").err


def test_an_empty_checkpoint_folder_is_refused(command: Command, tmp_path: Path) -> None:
    # An unset variable, as in --checkpoint-dir "$OUT", had the run's files written into the current folder.
    found = command(*RUN, "--checkpoint-dir", "", "--max-steps", "2")
    assert (found.status, list(tmp_path.iterdir())) == (2, [])
    assert "checkpoint_dir is empty" in found.err


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (ImportError("Using SOCKS proxy, but the 'socksio' package is not installed"), "ALL_PROXY"),
        (FileNotFoundError(2, "No such file or directory"), "SSL_CERT_FILE"),
        (UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range"), "HF_TOKEN"),
    ],
)
def test_settings_that_no_retry_repairs_end_at_once(error: Exception, advice: str) -> None:
    # httpx#3604, aider#3710: a wrong SSL_CERT_FILE was retried for five minutes, a SOCKS proxy was a traceback.
    with pytest.raises(HubError, match=f"check .*{advice}"), explained("dataset a/b", "a/b"):
        raise error


def test_a_text_of_exactly_the_context_is_not_called_longer(command: Command, tiny_checkpoint: Path) -> None:
    # executorch#2688, deepsparse#1447: the last token is written, and never read by the model.
    def told(length: int) -> str:
        prompt = ("--prompt", "x" * length, "--seed", "1", "--max-new-tokens", "1")
        return str(command("generate", "--checkpoint", str(tiny_checkpoint), *prompt).err)

    context = 24
    assert "longer than" not in told(context)
    assert "does not see" in told(context + 1)


def test_columns_of_categories_and_of_string_views_are_text(command: Command, tmp_path: Path) -> None:
    # pandas writes a category as a dictionary of strings: the same texts in another layout.
    lines = pa.array([f"{number}: {TEXT[:300]}" for number in range(30)])
    for name, column in (("category", lines.dictionary_encode()), ("view", lines.cast(pa.string_view()))):
        pq.write_table(pa.table({"text": column}), tmp_path / f"{name}.parquet")
        assert command(*RUN, "--dataset", f"{name}.parquet", "--max-steps", "2").status == 0


def test_a_line_of_metrics_that_a_power_cut_damaged_is_dropped_when_the_run_continues(
    command: Command, tmp_path: Path
) -> None:
    # Some file systems leave zeros in place of the last lines. The continued run ended well, with status 2, and no
    # command could draw it any more.
    (tmp_path / "notes.txt").write_text(TEXT)
    assert command(*RUN, "--dataset", "notes.txt", "--max-steps", "4", "--log-every", "1").status == 0
    metrics = tmp_path / "run" / METRICS_FILE
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join([*lines[:2], "\0" * 100 + "\n", lines[2][:30] + "\n", *lines[2:]]))
    assert command(*RUN[:-1], "run", "--resume", "--max-steps", "6").status == 0
    assert [event.step for event in read_metrics(metrics)][-1] == 6


def test_a_longer_run_says_where_its_learning_rate_continues(command: Command, tmp_path: Path) -> None:
    # open_clip#413, yolov3#626: with more epochs the learning rate jumps on the new schedule; nothing was said.
    (tmp_path / "notes.txt").write_text(TEXT)
    assert command(*RUN, "--dataset", "notes.txt", "--max-steps", "10").status == 0
    told = command(*RUN[:-1], "run", "--resume", "--max-steps", "20").out
    assert "the schedule now ends at step 20, not 10: the learning rate continues at" in told
    assert "of its peak, where it was at 10%" in told
    assert "schedule" not in command(*RUN[:-1], "run", "--resume").out


def test_a_sweep_over_long_texts_has_folders_that_a_file_system_allows(tmp_path: Path) -> None:
    # ray#1463, artemis#113: 120 letters of three bytes each ended the sweep at its first file, Errno 36.
    taken: set[str] = set()
    for seed in (1, 2):
        taken.add(free_name(tmp_path, {"sample_prompt": "训" * 60, "subset": "练" * 60, "seed": seed}, taken))
    assert len(taken) == 2
    for name in taken:
        (tmp_path / name / "earlier_1").mkdir(parents=True)


@pytest.mark.parametrize("folder", ["run", "."])
def test_a_run_inside_the_folder_of_its_text_can_be_continued(command: Command, tmp_path: Path, folder: str) -> None:
    # The run's own metrics.jsonl was read as text, and --resume was refused.
    (tmp_path / "notes.txt").write_text(TEXT)
    line = (*RUN, "--checkpoint-dir", folder, "--max-steps")
    assert command(*line, "2", "--dataset", ".").status == 0
    found = command(*line, "3", "--resume")
    assert (found.status, found.err) == (0, "")


@pytest.mark.parametrize(("folder", "reason"), [("x" * 300, "name too long"), ("notes.txt/run", "is a file")])
def test_an_impossible_folder_is_reported_before_the_text_is_read(
    command: Command, tmp_path: Path, folder: str, reason: str
) -> None:
    # open_lm#154: such a run was refused only after its text had been read, or its first epoch trained.
    (tmp_path / "notes.txt").write_text("too short to train on")
    found = command(*RUN, "--dataset", "notes.txt", "--checkpoint-dir", folder)
    assert (found.status, reason in found.err, "give another --checkpoint-dir" in found.err) == (2, True, True)


def test_a_folder_in_place_of_a_checkpoint_is_the_latest_in_it(command: Command, tiny_checkpoint: Path) -> None:
    # litgpt and transformers take folders; here "there is no checkpoint checkpoints" denied what the user could see.
    found = command("generate", "--checkpoint", str(tiny_checkpoint.parent), "--prompt", "a", "--max-new-tokens", "3")
    assert (found.status, found.err.splitlines()[0].split(" (")[0]) == (0, str(tiny_checkpoint))


@pytest.mark.parametrize(
    "line",
    ["generate --checkpoint", "evaluate --checkpoint", "inspect", "compare", "train --resume-from", "plot --out"],
)
def test_an_empty_path_is_not_this_folder(command: Command, tiny_checkpoint: Path, line: str) -> None:
    """Usually it is an unset variable of the shell, and the latest checkpoint here is not what it was to name."""
    outcome = command(*line.split(), "")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "the path is empty, as from an unset shell variable: give one, or leave it out" in outcome.err


def test_an_empty_word_and_the_marker_of_the_end_are_no_values(command: Command) -> None:
    outcome = command("export-page", "")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "unexpected word ''" in outcome.err
    outcome = command("export-page", "--checkpoint=--")  # some versions of argparse remove this value
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "Traceback" not in outcome.err
