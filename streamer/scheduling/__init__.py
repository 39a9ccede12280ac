"""Decides which frame runs next on the device and which work is refused. Pure rules; the dispatcher applies
them.
"""
