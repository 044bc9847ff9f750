"""SURFACE's rows for make, commands and training output, as they are written."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input

from transformer import DecoderOnlyTransformer, ModelConfig, TrainConfig
from transformer.config import SAMPLING_PRESETS, DataConfig, SamplingConfig
from transformer.presets import PRESETS
from transformer.text import load_shakespeare, load_tokenizer
from transformer.training import checkpoint

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run commands in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")  # main.py sets it; set here, it is taken back
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """checkpoints/ with epochs 1, 9 and 10 of an untrained byte model of Shakespeare, epoch 9 written last."""
    folder = tmp_path_factory.mktemp("surface") / "checkpoints"
    torch.manual_seed(0)
    shape = ModelConfig(257, d_model=16, num_heads=2, num_layers=1, d_ff=16, max_seq_len=16)
    config = TrainConfig(shape, DataConfig("shakespeare", "byte", 16, validation_tokens=500))
    tokenizer = load_tokenizer("byte")
    contents = checkpoint.model_contents(DecoderOnlyTransformer(shape), config, tokenizer)
    for epoch in (1, 10, 9):
        checkpoint.save(checkpoint.epoch_path(folder, epoch, "byte"), {**contents, "step": 1, "epoch": 1, "tokens": 8})
    return folder


def main(*arguments: str) -> int:
    return int(importlib.import_module("main").main(list(arguments)))


def trains_with(*arguments: str) -> TrainConfig:
    config: TrainConfig = importlib.import_module("transformer.cli.train.options").read_options(arguments).config
    return config


def samples_with(*arguments: str) -> SamplingConfig:
    sampling: SamplingConfig = (
        importlib.import_module("transformer.cli.generate.options").read_options(arguments).sampling
    )
    return sampling


# M3, M4 and C1 to C5: train


def test_m3_c1_train_has_the_promised_settings() -> None:
    config = trains_with()
    assert config == TrainConfig() == PRESETS["default"]
    model, data = config.model, config.data
    assert (data.dataset, data.tokens_per_epoch, data.encoding) == ("fineweb", 100_000_000, "cl100k_base")
    assert (model.num_layers, model.d_model, model.num_heads, model.d_ff) == (6, 256, 4, 1024)
    assert (data.seq_length, config.batch_size, config.accumulation_steps, model.dropout) == (128, 8, 16, 0.1)
    assert (model.vocab_size, model.position) == (100_277, "learned")
    assert (config.device, config.checkpoint_dir) == ("auto", "checkpoints")


def test_m4_c2_train_quick_has_the_promised_settings() -> None:
    config = trains_with("--quick")
    model, data = config.model, config.data
    assert (data.tokens_per_epoch, model.num_layers, model.d_model, model.d_ff) == (10_000_000, 4, 128, 512)
    assert config.checkpoint_dir == "checkpoints_quick"
    rest = dataclasses.replace(
        config,
        model=dataclasses.replace(model, num_layers=6, d_model=256, d_ff=1024),
        data=dataclasses.replace(data, tokens_per_epoch=100_000_000),
        checkpoint_dir="checkpoints",
    )
    assert rest == TrainConfig()
    assert trains_with("--preset", "quick") == config


def test_c2_quick_goes_with_other_flags() -> None:
    assert trains_with("--quick", "--epochs", "2", "--dataset", "shakespeare") == dataclasses.replace(
        PRESETS["quick"], epochs=2, data=dataclasses.replace(PRESETS["quick"].data, dataset="shakespeare")
    )


def test_c3_encoding_p50k_base() -> None:
    assert trains_with("--encoding", "p50k_base").data.encoding == "p50k_base"
    assert load_tokenizer("p50k_base").vocab_size == 50_281
    assert load_tokenizer("cl100k_base").vocab_size == 100_277


def test_c4_accumulation_steps_32() -> None:
    config = trains_with("--accumulation-steps", "32")
    assert config.accumulation_steps == 32
    assert config.tokens_per_step == 8 * 32 * 128
    assert dataclasses.replace(config, accumulation_steps=16) == TrainConfig()


def test_c5_mps_forces_apples_gpu_or_says_that_there_is_none(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trains_with("--mps") == dataclasses.replace(TrainConfig(), device="mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert main("train", "--preset", "tiny", "--mps") == 2
    assert re.fullmatch(r"error: device 'mps' was asked for, but Apple's GPU .*\n", capsys.readouterr().err)


# C6 to C8 and M5: generate


@pytest.mark.parametrize("preset", ["creative", "precise", "balanced", "greedy", "very-creative"])
def test_c6_presets_are_named_sampling_settings(preset: str) -> None:
    path = "checkpoints/model_epoch_10_cl100k.pt"
    assert samples_with("--checkpoint", path, "--preset", preset) == SAMPLING_PRESETS[preset].check()


def test_c6_list_presets_prints_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("generate", "--list-presets") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(SAMPLING_PRESETS)


@pytest.mark.parametrize("strategy", ["greedy", "multinomial", "top_k", "top_p", "top_k_top_p"])
def test_c7_strategies_and_their_settings_are_flags(strategy: str) -> None:
    sampling = samples_with(
        "--checkpoint", "m.pt", "--strategy", strategy, "--top-k", "50", "--top-p", "0.9", "--temperature", "0.8"
    )
    assert sampling == SamplingConfig(strategy, temperature=0.8, top_k=50, top_p=0.9)  # type: ignore[arg-type]


def test_c8_generate_alone_takes_the_latest_checkpoint_and_says_which(
    here: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = str(ROOT / "commands" / "generate.py")
    monkeypatch.chdir(checkpoints.parent)
    monkeypatch.setattr(sys, "argv", [script, "--prompt", "The cat sat"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    out, err = capsys.readouterr()
    assert ended.value.code == 0, err
    assert err.startswith(str(Path("checkpoints") / "model_epoch_10_byte.pt"))
    assert out.startswith("The cat sat")


def test_m5_generate_without_a_prompt_is_interactive(
    here: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(checkpoints, here / "checkpoints")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    with create_pipe_input() as keyboard, create_app_session(input=keyboard):
        keyboard.send_text("The cat sat\rThe hen\r\x04")  # Enter, Enter, Ctrl-D
        assert main("generate", "--max-new-tokens", "2") == 0
    out, err = capsys.readouterr()
    assert "model_epoch_10_byte.pt" in err
    assert out.startswith("The cat sat")
    assert "\nThe hen" in out


# M6, M7 and C11: the other targets and commands


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("train", "main.py train"),
        ("train-quick", "main.py train --quick"),
        ("generate", "main.py generate"),
        ("generate-prompt", "main.py generate --prompt"),
        ("evaluate", "main.py evaluate"),
        ("compare", "main.py compare"),
        ("demo-sampling", "main.py demo-sampling"),
        ("benchmark", "main.py benchmark"),
        ("demo", "main.py demo"),
        ("test", "pytest"),
        ("test-cov", "pytest --cov=src/transformer"),
        ("help", ""),
        ("clean", ""),
    ],
)
def test_m6_every_target_calls_its_command(target: str, line: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(MAIN)", "main.py")
    recipe = re.search(rf"^{target}:[^\n]*## [^\n]+\n((?:\t[^\n]*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    assert line in recipe[1]
    if line.startswith("main.py"):
        commands = importlib.import_module("main").COMMANDS
        assert callable(importlib.import_module(f"{commands[line.split()[1]][0]}.command").main)


def test_c11_evaluate_and_compare_run(here: Path, checkpoints: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(checkpoints, here / "checkpoints")
    for epoch in (1, 9):
        (here / "checkpoints" / f"model_epoch_{epoch}_byte.pt").unlink()
    for command in ("evaluate", "compare"):
        assert main(command) == 0
        out = capsys.readouterr().out
        assert "model_epoch_10_byte.pt" in out
        assert "perplexity" in out
        assert "bits per byte" in out


def small_demo(folder: Path) -> TrainConfig:
    """The demo's preset at a size that takes a second: a tiny model, a few scenes, a small vocabulary."""
    (folder / "scenes.txt").write_text("\n".join(load_shakespeare()[:4]), encoding="utf-8")
    data = DataConfig("scenes.txt", "bpe300", seq_length=32, validation_tokens=1000)
    return dataclasses.replace(
        PRESETS["tiny"], data=data, max_steps=12, log_every=3, checkpoint_dir=PRESETS["demo"].checkpoint_dir
    )


def test_m7_the_demo_trains_plots_evaluates_and_generates(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PRESETS, "demo", small_demo(here))
    assert main("demo", "--prompt", "JULIET:\n") == 0
    out = capsys.readouterr().out
    parts = [
        "1. Train",
        "vocabulary 300",
        "epoch 1: train",
        "2. Evaluate",
        "as uncertain as a choice among",
        "3. Generate",
        "JULIET:\n",
    ]
    positions = [out.index(part) for part in parts]
    assert positions == sorted(positions)
    left = {path.name for path in (here / "checkpoints_demo").iterdir()}
    states = {"training_state_bpe300.pt", "training_state_bpe300_previous.pt", ".run.lock"}
    expected = {"loss_curve.png", "loss_curve.svg", "metrics.jsonl", "model_epoch_1_bpe300.pt", "tensorboard"}
    assert left == expected | states
    assert (here / "checkpoints_demo" / "loss_curve.png").read_bytes().startswith(b"\x89PNG")


def test_m7_the_demos_seed_fixes_the_training_too(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--seed reached the writing only, though its help promises the training as well."""
    monkeypatch.setitem(PRESETS, "demo", dataclasses.replace(small_demo(here), max_steps=1))
    monkeypatch.setattr("transformer.reporting.run_plots.draw", lambda *_: Figure())  # the picture is not the subject
    models = []
    for seed in ("1", "1", "2"):
        assert main("demo", "--seed", seed) == 0
        models.append(checkpoint.load(here / "checkpoints_demo" / "model_epoch_1_bpe300.pt")["model"]["head.weight"])
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


def test_m7_the_demo_is_offline_and_of_the_bundled_text() -> None:
    demo = PRESETS["demo"].check()
    assert demo.data.dataset == "shakespeare"
    assert demo.data.encoding == "byte" or demo.data.encoding.startswith(("bpe", "cl100k_base", "p50k_base"))
    assert demo.checkpoint_dir == "checkpoints_demo"


# C13, T1, P1 and P2


@pytest.mark.parametrize("name", ["test_attention", "test_sampling", "test_perplexity", "test_kv_cache"])
def test_c13_the_named_test_files_have_12_tests_or_more(name: str) -> None:
    """Functions are counted; parameters only make them more."""
    tree = ast.parse((ROOT / "tests" / f"{name}.py").read_text(encoding="utf-8"))
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert len(tests) >= 12


@pytest.mark.parametrize(("encoding", "short"), [("cl100k_base", "cl100k"), ("p50k_base", "p50k")])
def test_t1_checkpoints_are_named_by_epoch_and_encoding(encoding: str, short: str) -> None:
    folder = Path(trains_with("--encoding", encoding).checkpoint_dir)
    path = checkpoint.epoch_path(folder, 10, load_tokenizer(encoding).short_name)
    assert path.as_posix() == f"checkpoints/model_epoch_10_{short}.pt"


def test_t1_quick_runs_go_to_a_folder_of_their_own() -> None:
    assert PRESETS["quick"].checkpoint_dir == "checkpoints_quick"


@pytest.mark.parametrize(
    "section",
    [
        "quick start", "what is inside", "structure", "learning path", "architecture", "training", "data", "devices",
        "generation", "tests", "papers", "licen[cs]e",
    ],
)  # fmt: skip
def test_p2_the_readme_has_the_section(section: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    headings = [line.lstrip("#").strip().lower() for line in readme.splitlines() if line.startswith("#")]
    assert any(re.search(rf"\b{section}\b", heading) for heading in headings), headings


def test_p2_the_readme_shows_the_mascot_and_names_the_licence() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "assets/mascot.png" in readme
    assert "MIT" in readme


def test_p1_the_page_goes_through_eight_steps_in_order_and_then_lets_try() -> None:
    page = (ROOT / "index.html").read_text(encoding="utf-8")
    headings = re.findall(r"<h2><a [^>]*>(?:<small>(Step \d)</small>)?([^<]+)</a></h2>", page)
    steps = [title.lower() for step, title in headings if step]
    assert [step for step, _ in headings if step] == [f"Step {number}" for number in range(1, 9)]
    promised = [
        "embeddings and positions", "scaled dot-product attention", "multi-head attention", "feed-forward", "block",
        "complete model", "training at scale", "kv cache",
    ]  # fmt: skip
    assert all(words in title for words, title in zip(promised, steps, strict=True)), steps
    lesson = [(step, title) for step, title in headings if not title.startswith("Appendix")]
    assert lesson[-1] == ("", "Try it yourself")
    for diagram in ("accumulate", "batch", "runs", "cache", "work"):  # accumulation, curves, prefill and decode
        assert f'data-diagram="{diagram}"' in page


def test_p2_the_mascot_is_a_picture_on_the_readme_and_on_the_page() -> None:
    assert (ROOT / "assets" / "mascot.png").read_bytes().startswith(b"\x89PNG")
    assert "assets/mascot.png" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "assets/mascot" in (ROOT / "index.html").read_text(encoding="utf-8")
