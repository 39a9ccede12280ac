"""Judges the bytes of images and what decoding them costs, and makes the files that decoders get.

Callers use `image_header` and `decode`. Nothing here opens files or starts threads.
"""
