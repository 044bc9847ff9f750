"""The plot command."""
