"""Attacks on a running service, and checks that its controls (S1 to S25 of the threat model) hold."""
