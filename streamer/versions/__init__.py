"""What may be served as which version: checks of files and memory, the state file, and requests for changes.

Workers ask the supervisor for changes with `requests`. The supervisor carries them out
(`streamer.supervisor.version_changes`); routes and commands are in `server` and `cli`.
"""
