"""Damaged files of a foreign model, and settings with odd values, through import and what comes after it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

import pytest

from fuzzing import altered, call, damaged, odd_value, run_cases
from model_folders import save_model

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def imported(folder: Path) -> None:
    """Imports the folder and writes with the result; a refused one leaves nothing."""
    shutil.rmtree("out", ignore_errors=True)
    if call("import", str(folder), "--out", "out").status:
        assert not Path("out").exists()
    else:
        assert call("generate", "--checkpoint", "out", "--prompt", "ab", "--max-new-tokens", "2").status == 0
        assert call("inspect", "out", "--json").status == 0


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_no_damage_and_no_odd_value_is_more_than_one_line(kind: str, tmp_path: Path) -> None:
    whole, folder = save_model(tmp_path / "whole", kind), tmp_path / "model"
    names = sorted(path.name for path in whole.iterdir())

    def case(chance: Random) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        name = chance.choice(names)
        data = (whole / name).read_bytes()
        if name.endswith(".json") and chance.random() < 0.7:
            (folder / name).write_text(json.dumps(altered(json.loads(data), chance, odd_value)), encoding="utf-8")
        else:
            (folder / name).write_bytes(damaged(data, chance))
        imported(folder)

    run_cases(tmp_path, 150, case, lambda: imported(whole))
