"""A checkpoint leaves the house: as a folder that transformers reads alone, or to the model hub and back."""
