"""Data files that ship with the service: the demo page's sample clip, and the script that makes it."""
