"""Turns decoded pixels into model input: letterbox and normalisation."""
