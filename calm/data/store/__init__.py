"""Prepared data as every later stage reads it: photographs, tables and their columns."""
