"""The files that a reader fills in; folder.py copies them."""
