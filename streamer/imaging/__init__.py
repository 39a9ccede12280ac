"""Judges the bytes of images and what decoding them costs, and makes the files that decoders get.

`streamer.image_header` and `streamer.media` are the way in. Nothing here opens files or starts threads.
"""
