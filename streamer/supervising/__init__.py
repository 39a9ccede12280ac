"""What the supervisor is made of: child processes, their watch, their log, the port's stand-in, signals."""
