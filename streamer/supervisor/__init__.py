"""The parent process: starts the others, watches their heartbeats, restarts them, and collects their log.

What a process does itself belongs to `server`, `sampling` and `inference`.
"""
