"""The generate command."""
