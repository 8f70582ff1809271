"""Results as one page for people."""
