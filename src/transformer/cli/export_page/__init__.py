"""The export-page command."""
