"""Shared by all commands: terminal output, signals, missing extras, and the redaction of secrets.

Commands belong to `streamer.cli`.
"""
