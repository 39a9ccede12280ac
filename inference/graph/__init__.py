"""Edits ONNX graphs before they are loaded. Running them belongs to `inference.engine`."""
