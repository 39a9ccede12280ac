"""Decoder processes with injected faults, for tests of the pool."""
