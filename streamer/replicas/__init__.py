"""Finds the replica that owns a session and forwards requests to it."""
