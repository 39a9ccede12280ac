"""Scores models on labelled sets: the figures of `streamer evaluate`, and its report.

Labelled sets belong to `datasets`, training and promotion to `training`, the command line to `cli.evaluate`.
"""
