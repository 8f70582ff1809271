"""The training loop, its strategies and checkpoints."""
