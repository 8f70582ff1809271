"""Stage `prepare`: photographs decoded once into shards, labels into tables."""
