"""Drift: whether what the cameras see, and what the model finds there, still looks like the reference."""
