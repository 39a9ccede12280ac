"""Examines and rebuilds model files: ``streamer models check`` and ``streamer models optimize``.

Loads models with the detector of the inference process, so that what it reports holds there too.
"""

import inference  # noqa: F401 - first of all: it turns the telemetry of ONNX Runtime off
