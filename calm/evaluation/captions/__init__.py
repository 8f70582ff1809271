"""Metrics of texts, equal to pycocoevalcap's."""
