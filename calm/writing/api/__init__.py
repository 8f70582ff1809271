"""Texts by a model behind an OpenAI-compatible interface."""
