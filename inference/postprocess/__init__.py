"""Turns model output into boxes: one decoder for each family, and non-maximum suppression."""
