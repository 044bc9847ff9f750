"""The compare command."""
