"""Decoder processes with faults built in, for the tests of the pool."""
