"""Text that lies on the hub: its files, which of them make up a dataset, and their text through a cache."""
