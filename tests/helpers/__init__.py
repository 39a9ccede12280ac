"""What tests share: the real service as a subprocess, clients, faults, made models. No tests."""
