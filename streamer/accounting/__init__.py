"""Counts what becomes of every frame: the ledger of a stream and the metrics of a worker."""
