"""Pretrained parts: visual encoders, language models, text encoder."""
