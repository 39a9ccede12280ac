"""Small mechanisms without a subject of their own: token bucket, back-off, byte budget, durable writes,
event loop, logging, terminal, signals, redaction of secrets.

Imports no other folder.
"""
