"""Counts what becomes of every frame: the ledger of a stream, the metrics and traces of a worker."""
