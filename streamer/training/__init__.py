"""Training of detectors: network, loss, views of pictures, checkpoints, export. It needs the extra `train`.

What renders scenes of printed codes, and trains the bundled models on them, is in `models/training`, outside
the wheel. The command line belongs to `cli.train`.
"""

import inference  # noqa: F401 - first of all: it turns the telemetry of ONNX Runtime off
