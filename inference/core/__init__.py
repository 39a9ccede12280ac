"""Code that every part of the inference process shares: settings, errors, devices, boxes, fair shares.

Nothing here imports ONNX Runtime.
"""
