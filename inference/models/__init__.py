"""Describes model files: family, manifest, labels, inputs and outputs.

Loading them belongs to `inference.engine`.
"""
