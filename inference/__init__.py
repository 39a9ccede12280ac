"""The inference process: models, micro-batching and the memory ring. It has no HTTP, media or storage.

This file imports no other module, so that the supervisor, which starts the process, does not load NumPy.
"""

import os

# The Linux builds of ONNX Runtime send telemetry unless this is set before they are loaded. All code that
# loads ONNX Runtime imports this package first (docs/decisions/0013).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
