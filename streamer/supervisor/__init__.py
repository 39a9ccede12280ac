"""The parent process: starts the others, watches their heartbeats, restarts them, and collects their log."""
