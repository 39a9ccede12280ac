"""What `streamer promote` does: judges a model against the one that is served, and puts it in its place.

Scores belong to `evaluation`, the examination of files to `model_tools`.
"""
