"""Benchmarks, one measurement per file: `make bench BENCH=name`. They start the service as users do."""
