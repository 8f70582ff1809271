"""Who writes the guidance texts and the ways of asking: a language model behind an API, or the offline grammar."""
