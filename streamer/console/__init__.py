"""What every command shares: terminal output, signals, and the redaction of secrets.

Commands belong to `streamer.cli.main`.
"""
