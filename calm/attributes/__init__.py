"""What can be right or wrong with a photograph: a taxonomy, the edits that produce each state, and words for them."""

LEVELS = ("low", "middle", "high")
