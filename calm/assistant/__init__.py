"""A trained model for people and for evaluation: scores, comments, suggestions, personal scores."""

from calm.assistant.assistant import Calm, Remedy, Score, Suggestion

__all__ = ["Calm", "Remedy", "Score", "Suggestion"]
