"""The worker process: composes the application, and serves health, metrics, drift and pages.

Routes of images, streams and video belong to `predict`, `websocket` and `webrtc`.
"""
