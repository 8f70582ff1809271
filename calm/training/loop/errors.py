"""Errors of training that are told to people."""


class TrainingError(ValueError):
    """Training that cannot go on; the message says why, and what is kept."""
