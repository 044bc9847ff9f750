"""Faster versions of core functions and modules, each equal to the plain one; accelerate() swaps them in."""
