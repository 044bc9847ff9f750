"""The interpret command."""
