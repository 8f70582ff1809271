"""Losses of the self-supervision: a file each, found by its name."""
