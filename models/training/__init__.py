"""Training of the default code detectors: synthesis, network, training, evaluation, export."""

import inference  # noqa: F401 - first of all: it turns the telemetry of ONNX Runtime off
