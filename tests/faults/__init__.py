"""Fault injection: what the service promises while processes die, networks break and clients misbehave.

`docs/reliability.md` lists the promises and the test of each. The short form runs with all other tests; `make
soak` runs the long one.
"""
