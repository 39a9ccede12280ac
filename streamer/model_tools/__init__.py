"""Inspects and optimises model files, for ``streamer models check`` and ``streamer models optimize``.

Models are loaded with the detector of the inference process, so that reports hold for the service too.
Downloads belong to `model_zoo`.
"""

import inference  # noqa: F401 - first, because it turns off the telemetry of ONNX Runtime
