"""A model in other programs' formats."""
