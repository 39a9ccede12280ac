"""Runs models: the inference process, its loop, the batch planner and the detector.

Knows nothing of streams or HTTP.
"""
