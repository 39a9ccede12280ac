"""Decoders of untrusted bytes in sandboxed child processes. The scheduling that feeds them is in
`dispatcher`.
"""
