"""Log lines and metrics of every process. What is measured is decided where it happens, not here."""
