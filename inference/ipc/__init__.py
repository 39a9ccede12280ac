"""Connects workers with the inference process: socket, shared memory ring, messages and process handle.

Knows nothing of models.
"""
