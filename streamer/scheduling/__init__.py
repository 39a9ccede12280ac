"""Decides what runs next on the device and what must not: pure rules, which the dispatcher carries out."""
