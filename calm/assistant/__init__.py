"""A trained model for people and for evaluation: scores, comments, suggestions, personal scores."""

from calm import uncollected

with uncollected():
    from calm.assistant.answers import Remedy, Score, Suggestion
    from calm.assistant.assistant import Calm

__all__ = ["Calm", "Remedy", "Score", "Suggestion"]
