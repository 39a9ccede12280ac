"""Attacks on a running service, and checks that its controls (S1 to S24 of the threat model) hold."""
