"""Decoders of foreign bytes in sandboxed child processes; what feeds them with work is in `dispatcher`."""
