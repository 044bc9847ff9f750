"""The exercises command."""
