"""Runs the scheduler and the flow control of the service in virtual time, with simulated devices."""
