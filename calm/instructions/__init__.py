"""Prompts and answers: their wording, and stage `build_instructions`."""
