"""The weight store: where model files come from."""
