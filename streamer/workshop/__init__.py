"""Model files under examination and rebuilt: ``streamer models check`` and ``optimize``.

Loads models as the inference process does, by its detector, so that what is said here holds there.
"""

import inference  # noqa: F401 - first of all: it turns the telemetry of ONNX Runtime off
