"""Judges the drift of all replicas together, from the rows and samples that they have stored.

Belongs here: reading and joining stored rows, the judgement of each stream and of all, and the report. Does
not belong here: what drift is, which `streamer.drift` decides, and how rows come into the store, which
`streamer.sampling` does.
"""
