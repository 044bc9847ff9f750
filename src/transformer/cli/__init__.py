"""The command line: what commands share, and one module or package per command."""
