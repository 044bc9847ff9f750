"""From documents to rows of tokens: local files, text on the hub, and the cache on disk."""
