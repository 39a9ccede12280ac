"""The folder in PYTHONPATH that makes an inference process a stub; see `tests.faults.stub_engine`."""
