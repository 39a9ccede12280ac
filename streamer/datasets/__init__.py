"""What is done with collected samples and their labels: export, verification, split, labelled sets.

Collecting them belongs to `sampling`, the command line to `cli.samples`.
"""
