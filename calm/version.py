"""The version, alone in a file that the build backend can read without importing calm."""

__version__ = "0.1.0"
