"""Photographs, ratings and comments: sources, schemas, shards, splits, leakage filter."""
