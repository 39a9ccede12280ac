"""Code that every process shares: settings, errors, devices, boxes, fair shares, log lines, metrics store.

Nothing here imports ONNX Runtime.
"""
