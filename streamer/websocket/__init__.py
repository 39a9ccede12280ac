"""The WebSocket transport: handshake, connection, outbox and close.

Flow control belongs to `streamer.streams`.
"""
