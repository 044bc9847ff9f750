"""The flags of `train` that produce a configuration."""

from __future__ import annotations

from typing import Any

from transformer.config import TrainConfig
from transformer.config_base import leaves
from transformer.presets import PRESETS

DERIVED = {"vocab_size"}
"""Settings without a flag, because others determine them."""


def changed(config: TrainConfig, base: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Returns the settings that differ, by name: the config's value and the value of `base`."""
    pairs = zip(leaves(config), leaves(base), strict=True)
    return {name: (value, usual) for (_, name, value), (_, _, usual) in pairs if value != usual and name not in DERIVED}


def train_flags(config: TrainConfig) -> list[str]:
    """Returns flags that give `train` these settings, starting from the nearest preset."""
    name = min(PRESETS, key=lambda preset: len(changed(config, PRESETS[preset])))
    flags = [] if name == "default" else ["--preset", name]
    differing = {setting: value for setting, (value, _) in changed(config, PRESETS[name]).items()}
    if config.init_from is not None:  # then the default folder is not the preset's
        differing["checkpoint_dir"] = config.checkpoint_dir
    for setting, value in differing.items():
        flag = setting.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, tuple):
            flags += [f"--{flag}", *map(str, value)]
        else:
            flags.append(f"--{flag}={value}" if str(value).startswith("-") or value == "" else f"--{flag}")
            flags += [] if "=" in flags[-1] else [str(value)]
    return flags
