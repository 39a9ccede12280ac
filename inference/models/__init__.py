"""Describes model files: family, manifest, labels, input and output signature.

Loading them belongs to `inference.engine`.
"""
