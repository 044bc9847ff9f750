"""The download command."""
