"""Training once with each value of a setting."""
