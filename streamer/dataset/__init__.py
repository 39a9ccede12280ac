"""Collected samples as data sets: `streamer samples`."""
