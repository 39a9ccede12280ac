"""Writes log lines and stores metrics, for every process. Other code decides what to log and to measure."""
