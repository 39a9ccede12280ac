"""Decides who a client is and what it may do: keys, tokens, scopes and quotas.

Routes and answers belong to `streamer.http`.
"""
