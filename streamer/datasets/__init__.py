"""What is done with collected samples: export, verification, statistics, split.

Collecting them belongs to `sampling`, the command line to `cli.samples`.
"""
