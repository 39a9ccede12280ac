"""The observer: a process beside the service that keeps frames worth labelling; and the way to it."""
