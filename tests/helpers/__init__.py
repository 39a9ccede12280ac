"""Code that tests share: the real service as a subprocess, clients, fault injection, generated models. No
tests.
"""
