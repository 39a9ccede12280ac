"""Checks encoded images and the cost of decoding them, decodes them, and draws boxes on them.

Callers use `image_header` and `decode`. Nothing here opens files or starts threads.
"""
