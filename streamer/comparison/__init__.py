"""Compares two served versions by what they detect on the same frames.

Belongs here: the pairs of results that shadow runs make, and what is computed from them. Does not belong
here: who makes the runs (`streamer.sampling.shadow`), and the routes and pages that show a comparison
(`streamer.server`).
"""
