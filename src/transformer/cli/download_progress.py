"""News of text that comes from the hub, on the terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from transformer.data.contracts import FetchProgress, Notify


def teller(console: Console, show: Callable[[FetchProgress], object]) -> Notify:
    """Returns what prints a line of news about the data so that it lasts, and gives numbers of fetching to `show`."""

    def tell(news: str | FetchProgress) -> None:
        if isinstance(news, str):
            console.print(news, style="dim")
        else:
            show(news)

    return tell


def fetch_numbers(news: FetchProgress) -> str:
    """Returns how the fetching goes in a few words."""
    return f"shard {news.shard}  {news.bytes_per_second / 1e6:.1f} MB/s  cache {news.cache_bytes / 1e9:.2f} GB"
