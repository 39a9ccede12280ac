"""A folder for PYTHONPATH that turns an inference process into a stub; see `tests.faults.stub_engine`."""
