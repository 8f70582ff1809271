"""Pre-training of the MFAM and fine-tuning of the whole, by one small loop."""
