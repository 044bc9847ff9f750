"""Text on the hub: its files, and their text through the cache."""
