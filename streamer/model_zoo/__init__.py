"""Known and installed models: the registry of known models, what a folder holds, and verified downloads.

Loading and running a model belongs to `model_tools` and to the inference process.
"""
