"""Messages and progress of text fetched from the hub, on the terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from transformer.cli.console import printable
from transformer.data.contracts import FetchProgress, Notify


def notifier(console: Console, show: Callable[[FetchProgress], object]) -> Notify:
    """Returns a callback that prints messages as lines and passes fetch progress to `show`."""

    def notify(message: str | FetchProgress) -> None:
        if isinstance(message, str):
            console.print(printable(message), style="dim")
        else:
            show(message)

    return notify


def fetch_numbers(message: FetchProgress) -> str:
    """Returns shard, speed and cache size in a few words."""
    return f"shard {message.shard}  {message.bytes_per_second / 1e6:.1f} MB/s  cache {message.cache_bytes / 1e9:.2f} GB"
