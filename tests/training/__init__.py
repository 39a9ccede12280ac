"""Tests of the training of the default models."""
