"""Sweeps: training once with each value of a setting."""
