"""Drift detection: do recent images and predictions still look like a reference?

Belongs here: rows and their features, the reference and its thresholds, scoring, episodes, the files of
reference and history, and the process that runs Evidently. Does not belong here: turning sampled frames into
rows and serving results, which `streamer.sampling` and `streamer.server` do.
"""
