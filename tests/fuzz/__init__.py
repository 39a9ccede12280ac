"""Fuzzing of every parser that reads foreign bytes: `make fuzz`, and a short run with the other tests."""
