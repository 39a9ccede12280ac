"""Connects workers and inference process: socket, shared memory ring, messages and process handle.

It loads and runs no models.
"""
