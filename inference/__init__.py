"""The inference process: models, micro-batching and the memory ring; knows nothing of HTTP, media or S3.

Nothing is imported here, so that the supervisor, which starts the process, does not load NumPy.
"""

import os

# ONNX Runtime's Linux builds send what they run to their makers, unless this is set before they are loaded.
# Whoever loads it imports this package first: docs/decisions/0013.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
