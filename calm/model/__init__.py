"""CALM in transformers' conventions: configuration, encoder, MFAM, model, processor, readouts."""
