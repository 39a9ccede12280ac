"""Known and installed models: the catalogue, what lies in a folder, downloads that can be trusted."""
