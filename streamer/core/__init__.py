"""Small mechanisms without a subject of their own: token bucket, byte budget, durable writes, logging.

Imports no other folder.
"""
