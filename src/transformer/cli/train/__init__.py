"""The train command."""
