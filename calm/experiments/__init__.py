"""Models trained again in another way: ablations and cross-validations."""
