"""Known and installed models: catalogue, listing and verified downloads."""
