"""What every part of the inference process shares: settings, errors, devices, detections, fair shares.

Nothing here imports ONNX Runtime.
"""
