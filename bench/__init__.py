"""Benchmarks, one measurement a file: `make bench BENCH=name`. They start the service as users do."""
