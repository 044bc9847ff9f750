"""Perplexity by document, and checkpoints ranked by it."""
